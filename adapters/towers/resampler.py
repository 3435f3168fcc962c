"""Resamplers: modules whose queries read all patches of a tile and become its visual tokens."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def reading_shares(
    reading: Float[Tensor, "heads visual width"],
    read: Float[Tensor, "key_heads patches width"],
    scale: float,
    real: Bool[Tensor, " patches"] | None = None,
) -> Float[Tensor, "visual patches"]:
    """Return how much of each patch the queries read, averaged over heads: their attention to patches, as if there were
    nothing else to attend to. Heads may share keys; patches that are not real are not read."""
    keys = read.repeat_interleave(len(reading) // len(read), 0)
    logits = reading.float() * scale @ keys.float().transpose(1, 2)
    if real is not None:
        logits = logits.masked_fill(~real, -torch.inf)
    return logits.softmax(-1).mean(0)
