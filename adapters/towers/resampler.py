"""Resamplers: modules whose queries read all patches of a tile and become its visual tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tokenprune.encoded import CapturePoints


def with_reads(point: CapturePoints, attention: Any, **more: nn.Module) -> CapturePoints:
    """Return capture points that also record what a resampler's attention compares ("reading", the projection of its
    queries, and "read", that of the patches) and `more` modules."""
    return replace(point, outputs={**point.outputs, "reading": attention.q_proj, "read": attention.k_proj, **more})


def shares_of_tiles(
    reading: Iterable[Tensor], read: Iterable[Tensor], scale: float, real: Iterable[Tensor]
) -> list[Tensor]:
    """Return the `reading_shares` of every tile."""
    return [reading_shares(*tile[:2], scale, tile[2]) for tile in zip(reading, read, real, strict=True)]


def reading_shares(
    reading: Float[Tensor, "heads visual width"],
    read: Float[Tensor, "key_heads patches width"],
    scale: float,
    real: Bool[Tensor, " patches"] | None = None,
) -> Float[Tensor, "visual patches"]:
    """Return how much of each patch the queries read, averaged over heads: their attention as if there were only
    patches to attend to. Heads may share keys; patches that are not real are not read."""
    keys = read.repeat_interleave(len(reading) // len(read), 0)
    logits = reading.float() * scale @ keys.float().transpose(1, 2)
    if real is not None:
        logits = logits.masked_fill(~real, -torch.inf)
    return logits.softmax(-1).mean(0)
