"""A smaller version of an image that the vision tower encodes, and where its visual tokens go."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from tokenprune.tokens.layout import Layout


@dataclass(frozen=True, eq=False)
class Shrunk:
    """The smaller version of one image or video.

    kept: sorted indices within the visual tokens of the image as it was passed: the places that those of the smaller
        version take, one after the other.
    layout: the layout of the smaller version.
    size: its height and width in pixels; of a video, those of each frame.
    """

    kept: Int[Tensor, " kept"]
    layout: Layout
    size: tuple[int, int]

    def to(self, device: torch.device) -> Shrunk:
        return replace(self, kept=self.kept.to(device))


def stretched(whole: Layout, small: Layout) -> Int[Tensor, " small"]:
    """The places of a smaller version's visual tokens among those of the whole image: the cells of every small grid,
    stretched over the large one, take the place in which their centre lies. Sorted, and on the CPU."""
    indices, start = [], 0
    for (frames, height, width), (_, rows, columns) in zip(whole.grids, small.grids, strict=True):
        frame = torch.arange(frames, device="cpu")[:, None, None] * height
        places = (frame + _centres(height, rows)[:, None]) * width + _centres(width, columns)
        indices.append(start + places.flatten())
        start += frames * height * width
    return torch.cat(indices)


def _centres(length: int, n: int) -> Int[Tensor, " n"]:
    """The cells, of `length`, in which the centres of `n` <= `length` equal parts lie."""
    return (2 * torch.arange(n, device="cpu") + 1) * length // (2 * n)
