"""Average pooling, a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from tokenprune.selection import Merge, Selection, split
from tokenprune.strategies.baselines.grid import columns_per_row
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import MergingStrategy, Record
from tokenprune.tokens import VisualTokens


@register_strategy("averagepooling")
@dataclass(frozen=True)
class AveragePooling(MergingStrategy):
    """Divides the grid into as many rectangles as the budget allows, in the grid's proportions, and keeps the mean of
    each, at the place and position ID of its middle token.

    Several grids and frames share the budget in proportion to their sizes. Newline tokens belong to no rectangle: they
    are kept in the same proportion as patches, evenly spaced and unchanged.
    """

    record: ClassVar[Record] = Record(
        keeps="the mean of each cell of the grid",
        waits=(3, 2),
    )

    whole_image: ClassVar[bool] = True

    @property
    def reads_grid(self) -> bool:
        return True

    def select(self, tokens: VisualTokens) -> Selection:
        n_visual, n_kept, device = tokens.n_visual, self.budget(tokens.n_visual), tokens.features.device
        if n_kept == n_visual:
            return Selection.all(n_visual, device)
        places, frame = tokens.layout.coordinates(), tokens.layout.frame_numbers()
        frames = [(frame == i).nonzero()[:, 0] for i in range(int(frame.max()) + 1)]
        ends = (frame == -1).nonzero()[:, 0]
        n_ends, *shares = split(n_kept, [len(ends), *map(len, frames)])
        middles, sources, cells = [ends[segments(n_ends, len(ends))[1]]], [], []
        for patches, share in zip(frames, shares, strict=True):
            if share:
                height = len(places[patches, 2].unique())
                cell, middle = rectangles(share, height, len(patches) // height)
                cells.append(sum(map(len, middles)) + cell)
                middles.append(patches[middle])
                sources.append(patches)
        kept, order = torch.cat(middles).sort()
        targets, pooled = order.argsort()[torch.cat(cells)], torch.cat(sources)
        lengths = [n_kept, len(targets), len(pooled)]
        # A single copy, because every copy synchronises with the GPU.
        kept, targets, pooled = torch.cat([kept, targets, pooled]).to(device).split(lengths)
        merged = Merge.mean(targets, pooled, torch.ones_like(targets, dtype=torch.float32), n_kept)
        return Selection(kept, n_visual, merged=merged)


def rectangles(count: int, height: int, width: int) -> tuple[Int[Tensor, " places"], Int[Tensor, " count"]]:
    """Divide a height x width grid into `count` rectangles; return each place's rectangle and each one's middle
    place."""
    per_row = columns_per_row(count, height, width)
    band, rows = segments(len(per_row), height)
    first = torch.tensor(list(accumulate(per_row, initial=0)), device="cpu")[band]
    columns = torch.tensor(per_row, device="cpu")[band]
    cell = first[:, None] + torch.arange(width, device="cpu") * columns[:, None] // width
    middle = [row * width + segments(n_columns, width)[1] for row, n_columns in zip(rows, per_row, strict=True)]
    return cell.flatten(), torch.cat(middle)


def segments(count: int, length: int) -> tuple[Int[Tensor, " length"], Int[Tensor, " count"]]:
    """Divide range(length) into `count` nearly equal segments; return each element's segment and each one's middle."""
    starts = [-(-i * length // count) for i in range(count + 1)] if count else [0]
    middle = [(start + end) // 2 for start, end in pairwise(starts)]
    segment = torch.arange(length, device="cpu") * count // max(1, length)
    return segment, torch.tensor(middle, dtype=torch.long, device="cpu")
