"""MiniMax M3 in vLLM on a CPU in float32."""

# pyright: reportMissingImports=false

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm


def run_minimax_m3_on_cpus() -> None:
    """Compute in PyTorch what vLLM has only GPU kernels for, or what is slow in Triton's interpreter."""
    from vllm import _custom_ops
    from vllm.models.minimax_m3.common import vision_tower
    from vllm.models.minimax_m3.nvidia import model

    _custom_ops.fused_minimax_m3_qknorm_rope_kv_insert = norm_and_rotate
    model.MiniMAXGemmaRMSNorm.forward = add_and_norm
    vision_tower.triton_mrope = rotate_by_axis


def add_and_norm(norm: Any, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
    """Return the norm of `x`, or of its sum with the residual, and that sum."""
    total = x if residual is None else x + residual
    normed = rms_norm(total, norm.weight.shape, 1 + norm.weight, norm.variance_epsilon)
    return normed if residual is None else (normed, total)


def norm_and_rotate(
    joint: Tensor,
    of_queries: Tensor,
    of_keys: Tensor,
    table: Tensor,
    ids: Tensor,
    n_queries: int,
    n_keys: int,
    n_rotated: int,
    epsilon: float,
    **_: Any,
) -> None:
    """In place, in rows of queries, keys and values per token. Rotates the first `n_rotated` numbers of each head."""
    cos, sin = (part[:, None] for part in table[ids].chunk(2, -1))
    heads = joint.view(len(joint), -1, len(of_queries))
    for part, weight in ((heads[:, :n_queries], of_queries), (heads[:, n_queries:][:, :n_keys], of_keys)):
        normed = rms_norm(part, weight.shape, 1 + weight, epsilon)
        part.copy_(torch.cat([turned(normed[..., :n_rotated], cos, sin), normed[..., n_rotated:]], -1))


def rotate_by_axis(
    queries: Tensor, keys: Tensor, cos: Tensor, sin: Tensor, sections: list[int], width: int, n_rotated: int, **_: Any
) -> None:
    """Rotate rows of a vision tower's heads in place: the sections of their first `n_rotated` numbers by time, row and
    column, each with its own plane of `cos` and `sin`."""
    by_axis = [
        torch.cat([plane[axis] for axis, plane in enumerate(part.split(sections, -1))], -1)[:, None]
        for part in (cos, sin)
    ]
    for states in (queries, keys):
        first = states.view(len(states), -1, width)[..., :n_rotated]
        first.copy_(turned(first, *by_axis))


def turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of numbers, one from each half."""
    first, second = states.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
