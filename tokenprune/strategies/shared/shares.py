"""How many tokens each frame of a video may keep, and which ones are best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def largest_remainders(weights: Sequence[float], count: int, least: int, most: int) -> list[int]:
    """Split `count` into one integer per weight, in proportion to the weights and as exactly as integers can.

    Each part gets `least` (0 where that is too much for all), and of the rest the integer below its share, up to
    `most`. What is then left goes to the largest fractions, one each, in turn. `most` times the parts is at least
    `count`.
    """
    floor = least if least * len(weights) <= count else 0
    rest, total = count - floor * len(weights), sum(weights)
    exact = [weight / total * rest for weight in weights]
    parts = [min(floor + math.floor(share), most) for share in exact]
    order = sorted(range(len(weights)), key=lambda i: math.floor(exact[i]) - exact[i])
    left = count - sum(parts)
    while left:
        for i in order:
            if left and parts[i] < most:
                parts[i] += 1
                left -= 1
    return parts


def best_of_frames(
    scores: Float[Tensor, "frames places"], shares: Int[Tensor, " frames"]
) -> Bool[Tensor, "frames places"]:
    """Mark the highest scores of each frame, as many as its share; ties go to the first."""
    rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return rank < shares[:, None]


def marked_first(marked: Bool[Tensor, "frames places"]) -> Int[Tensor, " order"]:
    """Return the order that begins with the marked tokens. Does not wait for a GPU."""
    return (~marked.flatten()).byte().argsort(stable=True)


def evenly_spaced(n_places: int, count: int, device: torch.device) -> Int[Tensor, " count"]:
    """Return `count` places of the first frame, evenly spaced in raster order, for a budget smaller than a frame."""
    return (torch.arange(count, device=device) * n_places + n_places // 2) // count
