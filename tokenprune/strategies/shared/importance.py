"""VFlowOpt's importance map (https://arxiv.org/abs/2508.05211, section 3)."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.errors import UnsupportedError
from tokenprune.sequence.packing import true_indices
from tokenprune.tokens import VisionAttention

BINS = 256


def anchor_mask(
    received: Float[Tensor, "tiles patches"], threshold: float, real: Bool[Tensor, "tiles patches"] | None = None
) -> Bool[Tensor, "tiles patches"]:
    """Mark the patches that receive more than `threshold` times the mean attention of their tile's `real` patches.

    In a tile without such a patch, the one that receives the most attention is the anchor.
    """
    n_real = received.shape[1] if real is None else real.sum(1, keepdim=True)
    above = received > threshold * received.sum(1, keepdim=True) / n_real
    best = torch.zeros_like(above).scatter_(1, received.argmax(1, keepdim=True), True)
    return torch.where(above.any(1, keepdim=True), above, best)


def context_relevance(
    attention: VisionAttention, threshold: float, *, mean: bool = False
) -> Float[Tensor, "tiles patches"]:
    """Return the attention that a tile's anchors pay to each of its patches: the sum over anchors, or their `mean`."""
    real = None if attention.real is None else attention.real[:, attention.n_prefix :]
    chosen = anchor_mask(attention.column_sums(), threshold, real)
    first = true_indices(chosen, int(chosen.sum(1).max()))  # one GPU synchronisation saves most of the rows
    paid = attention.received_from(first, chosen.gather(1, first))
    return paid / chosen.sum(1, keepdim=True) if mean else paid


def patch_entropy(
    colors: Float[Tensor, "tiles 3 height width"], n_patches: int, *, bits: bool = False
) -> Float[Tensor, "tiles patches"]:
    """Return the entropy of each square patch's grey values (256 levels), in nats or `bits`. `colors` are in 0..1.

    Pixels beyond the last whole patches of a tile are ignored, as in the tower's convolution.
    """
    height, width = colors.shape[-2:]
    side = patch_side(height, width, n_patches)
    whole = colors[..., : height // side * side, : width // side * side]
    levels = (whole.mean(1) * BINS).long().clamp(0, BINS - 1)
    patches = rearrange(levels, "tile (row i) (column j) -> tile (row column) (i j)", i=side, j=side)
    counts = torch.zeros(*patches.shape[:2], BINS, dtype=torch.float32, device=colors.device).scatter_add_(
        2, patches, torch.ones_like(patches, dtype=torch.float32)
    )
    shares = counts / counts.sum(2, keepdim=True)
    nats = torch.special.entr(shares).sum(2)
    return nats / math.log(2) if bits else nats


def patch_side(height: int, width: int, n_patches: int) -> int:
    """Return the side of the largest square patches of which height x width pixels hold exactly `n_patches`.

    Raises UnsupportedError if there are no such patches.
    """
    for side in range(math.isqrt(height * width // n_patches), 0, -1):
        if (height // side) * (width // side) == n_patches:
            return side
    raise UnsupportedError(
        f"VFlowOpt: alpha needs the entropies of square patches, and a tile of {height} x {width} pixels does not "
        f"divide into {n_patches} of them. Leave out alpha."
    )


def importance_map(
    attention: VisionAttention,
    threshold: float,
    alpha: float = 0.0,
    colors: Float[Tensor, "tiles 3 height width"] | None = None,
    *,
    as_released: bool = False,
) -> Float[Tensor, " visual"]:
    """Return context relevance plus alpha times the softmax of patch entropies H, per visual token:
    sum_a A_aj + alpha * exp(H_j) / sum_j exp(H_j), where A_aj is the attention that anchor a pays to patch j.

    Both terms are computed within tiles. `colors` are required unless alpha is 0.

    as_released: follow the released code instead of the paper: average over the anchors, so that the weight of alpha
        does not depend on their number, and measure entropies in bits.
    """
    key = ("context relevance", threshold, as_released)
    values = attention.once(key, lambda: context_relevance(attention, threshold, mean=as_released))
    if alpha:
        assert colors is not None
        entropies = patch_entropy(colors, values.shape[1], bits=as_released)
        if attention.real is not None:
            entropies = entropies.masked_fill(~attention.real[:, attention.n_prefix :], -torch.inf)
        values = values + alpha * entropies.softmax(1)
    return attention.to_tokens(values)
