"""VFlowOpt's importance map (https://arxiv.org/abs/2508.05211, section 3)."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.sequence.packing import true_indices
from tokenprune.tokens import VisionAttention

BINS = 256


def anchors(received: Float[Tensor, "tiles patches"], threshold: float) -> Bool[Tensor, "tiles patches"]:
    """The patches whose received attention is above `threshold` times their tile's mean, and in a tile where none is,
    the one that receives most: an empty set has no opinion."""
    above = received > threshold * received.mean(1, keepdim=True)
    best = torch.zeros_like(above).scatter_(1, received.argmax(1, keepdim=True), True)
    return torch.where(above.any(1, keepdim=True), above, best)


def context_relevance(
    attention: VisionAttention, threshold: float, *, mean: bool = False
) -> Float[Tensor, "tiles patches"]:
    """How much a tile's anchors attend to each of its patches, summed over the anchors, or their mean."""
    chosen = anchors(attention.column_sums(), threshold)
    first = true_indices(chosen, int(chosen.sum(1).max()))  # one wait for a GPU, for far fewer rows than all
    paid = attention.received_from(first, chosen.gather(1, first))
    return paid / chosen.sum(1, keepdim=True) if mean else paid


def patch_entropy(
    colors: Float[Tensor, "tiles 3 height width"], n_patches: int, *, bits: bool = False
) -> Float[Tensor, "tiles patches"]:
    """Entropy in nats, or bits, of each square patch's grey values, 256 levels; `colors` are in 0..1."""
    side = round((colors.shape[-2] * colors.shape[-1] / n_patches) ** 0.5)
    levels = (colors.mean(1) * BINS).long().clamp(0, BINS - 1)
    patches = rearrange(levels, "tile (row i) (column j) -> tile (row column) (i j)", i=side, j=side)
    counts = torch.zeros(*patches.shape[:2], BINS, device=colors.device).scatter_add_(
        2, patches, torch.ones_like(patches, dtype=torch.float32)
    )
    shares = counts / counts.sum(2, keepdim=True)
    nats = torch.special.entr(shares).sum(2)
    return nats / math.log(2) if bits else nats


def importance_map(
    attention: VisionAttention,
    threshold: float,
    alpha: float = 0.0,
    colors: Float[Tensor, "tiles 3 height width"] | None = None,
    *,
    as_released: bool = False,
) -> Float[Tensor, " visual"]:
    """Context relevance plus alpha times the softmax of the patch entropies, both within tiles, carried onto visual
    tokens. `colors` are needed if alpha is not 0.

    as_released: what the paper's code computes, and not what the paper says: the mean over the anchors, so that alpha
        weighs the same however many there are, and entropies in bits.
    """
    values = context_relevance(attention, threshold, mean=as_released)
    if alpha:
        assert colors is not None
        values = values + alpha * patch_entropy(colors, values.shape[1], bits=as_released).softmax(1)
    return attention.layout.to_tokens(values)
