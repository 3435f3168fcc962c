"""Rotary position embeddings."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def apply_rotary(
    states: Float[Tensor, "patches heads width"],
    cos: Float[Tensor, "patches width"],
    sin: Float[Tensor, "patches width"],
) -> Float[Tensor, "patches heads width"]:
    """Rotate queries or keys in float32."""
    cos, sin = cos[:, None].float(), sin[:, None].float()
    first, second = states.float().chunk(2, -1)
    return (states.float() * cos + torch.cat([-second, first], -1) * sin).to(states.dtype)
