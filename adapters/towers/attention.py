"""The attention of vision towers that take the patches of all images in one row: read from outside, and recomputed with
a bias if the kernel takes none. Rotary position embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tokenprune.encoded import CapturePoints

#: Queries, keys and values, with the heads on the same axis.
Projected = tuple[Tensor, Tensor, Tensor]
Rotation = tuple[Float[Tensor, "patches head_width"], Float[Tensor, "patches head_width"]]


@dataclass(frozen=True)
class RowAttention:
    """How a layer's attention is read and repeated.

    points: returns the attention module of a layer, and the modules that expose its queries, keys and values.
    project: returns queries, keys and values, (patches, heads, width), as the attention multiplies them, from its
        module, what the points returned, and the cosines and sines of the rotary embeddings.
    attend: returns what the attention would for hidden states, with the bias of each key added to its logits, within
        the segments that end at `ends`; None if the layers take a mask, to which the bias can be added.
    """

    points: Callable[[Any], CapturePoints]
    project: Callable[[Any, Mapping[str, Tensor], Rotation], Projected]
    attend: Callable[[Any, Tensor, Tensor, Rotation, Tensor], Tensor | tuple[Tensor, None]] | None = None


def project_joint(attention: Any, captured: Mapping[str, Tensor], rotation: Rotation) -> Projected:
    """`project` for a joint projection, "qkv", whose queries and keys may be normed. Queries may share keys."""
    width = rotation[0].shape[-1]
    joint = captured["qkv"].unflatten(-1, (-1, width))
    n_heads, n_keys = attention.num_heads, (joint.shape[1] - attention.num_heads) // 2
    queries, keys, values = joint.split([n_heads, n_keys, n_keys], 1)
    queries, keys = captured.get("queries", queries), captured.get("keys", keys)
    times = n_heads // n_keys
    queries, keys = apply_rotary(queries, *rotation), apply_rotary(keys, *rotation)
    return queries, keys.repeat_interleave(times, 1), values.repeat_interleave(times, 1)


def project_separate(attention: Any, captured: Mapping[str, Tensor], rotation: Rotation) -> Projected:
    """`project` for separate projections, possibly of a batch of one."""
    width = rotation[0].shape[-1]
    queries, keys, values = (
        captured[name].flatten(0, -2).unflatten(-1, (-1, width)) for name in ("queries", "keys", "values")
    )
    return apply_rotary(queries, *rotation), apply_rotary(keys, *rotation), values


def attend_joint(
    attention: Any,
    hidden: Float[Tensor, "patches width"],
    ends: Int[Tensor, " segments_and_one"],
    rotation: Rotation,
    bias: Float[Tensor, " patches"],
) -> Float[Tensor, "patches width"]:
    """Repeat the attention of Qwen-VL and GLM-V, "qkv" and "proj", with a bias."""
    captured = {"qkv": attention.qkv(hidden)}
    if hasattr(attention, "q_norm"):
        parts = captured["qkv"].unflatten(-1, (3, attention.num_heads, -1)).unbind(-3)
        captured |= {"queries": attention.q_norm(parts[0]), "keys": attention.k_norm(parts[1])}
    projected = project_joint(attention, captured, rotation)
    return attention.proj(biased(projected, ends, bias, attention.scaling).to(hidden.dtype))


def attend_separate(
    attention: Any,
    hidden: Float[Tensor, "*one patches width"],
    ends: Int[Tensor, " segments_and_one"],
    rotation: Rotation,
    bias: Float[Tensor, " patches"],
) -> tuple[Float[Tensor, "*one patches width"], None]:
    """Repeat PaddleOCR-VL's attention, with separate projections and "out_proj", with a bias."""
    captured = {name: module(hidden) for name, module in separate_points(attention).outputs.items()}
    heads = biased(project_separate(attention, captured, rotation), ends, bias, attention.head_dim**-0.5)
    return attention.out_proj(heads.view(hidden.shape).to(hidden.dtype)), None


def biased(
    projected: Projected, ends: Int[Tensor, " segments_and_one"], bias: Float[Tensor, " patches"], scale: float
) -> Float[Tensor, "patches heads_width"]:
    """Attend within segments, with the bias of each key added to its logits."""
    lengths = ends.diff().tolist()
    parts = zip(*(part.split(lengths) for part in (*projected, bias.to(projected[0].dtype))), strict=True)
    heads = [
        scaled_dot_product_attention(
            *(part.transpose(0, 1)[None] for part in (queries, keys, values)),
            attn_mask=added.expand(1, 1, len(queries), -1),
            scale=scale,
        )
        for queries, keys, values, added in parts
    ]
    return torch.cat(heads, 2)[0].transpose(0, 1).flatten(1)


def joint_points(attention: Any) -> CapturePoints:
    """The capture points of a joint projection, and of norms after it, if there are any."""
    norms = {"queries": attention.q_norm, "keys": attention.k_norm} if hasattr(attention, "q_norm") else {}
    return CapturePoints(attention, {"qkv": attention.qkv, **norms})


def separate_points(attention: Any) -> CapturePoints:
    """The capture points of separate projections."""
    return CapturePoints(attention, {"queries": attention.q_proj, "keys": attention.k_proj, "values": attention.v_proj})


def block_points(layer: nn.Module) -> CapturePoints:
    """`joint_points` of a layer's `attn`."""
    return joint_points(layer.attn)


#: The attention of Qwen-VL and GLM-V.
JOINT = RowAttention(block_points, project_joint, attend_joint)


def apply_rotary(
    states: Float[Tensor, "patches heads width"],
    cos: Float[Tensor, "patches width"],
    sin: Float[Tensor, "patches width"],
) -> Float[Tensor, "patches heads width"]:
    """Rotate queries or keys in float32."""
    cos, sin = cos[:, None].float(), sin[:, None].float()
    first, second = states.float().chunk(2, -1)
    return (states.float() * cos + torch.cat([-second, first], -1) * sin).to(states.dtype)
