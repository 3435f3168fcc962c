"""An evenly spaced grid, a baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from tokenprune.selection import Selection, split
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Record, Strategy
from tokenprune.tokens import VisualTokens


@register_strategy("grid")
@dataclass(frozen=True)
class Grid(Strategy):
    """Keeps evenly spaced visual tokens of the grid, about as far apart vertically as horizontally.

    Several grids and frames share the budget in proportion to their sizes.
    """

    record: ClassVar[Record] = Record(
        keeps="evenly spaced tokens",
        waits=(3, 2),
    )

    whole_image: ClassVar[bool] = True

    @property
    def reads_grid(self) -> bool:
        return True

    def select(self, tokens: VisualTokens) -> Selection:
        kept, start = [], 0
        sizes = [height * width for frames, height, width in tokens.grids for _ in range(frames)]
        shares = iter(split(self.budget(tokens.n_visual), sizes))
        for frames, height, width in tokens.grids:
            for _ in range(frames):
                kept += [start + row * width + column for row, column in lattice(next(shares), height, width)]
                start += height * width
        return Selection(torch.tensor(kept, device=tokens.features.device), tokens.n_visual)


def lattice(count: int, height: int, width: int) -> list[tuple[int, int]]:
    """Return `count` cells of a height x width grid in raster order, evenly spaced on evenly spaced rows."""
    per_row = columns_per_row(count, height, width)
    return [
        (row, column)
        for row, n_columns in zip(centres(len(per_row), height), per_row, strict=True)
        for column in centres(n_columns, width)
    ]


def columns_per_row(count: int, height: int, width: int) -> list[int]:
    """Return how many of `count` cells each row has, for about equal vertical and horizontal spacing. No row is empty,
    however tall the grid is."""
    n_rows = min(max(round(math.sqrt(count * height / width)), math.ceil(count / width)), height, count)
    return split(count, [1] * n_rows)


def centres(count: int, length: int) -> list[int]:
    """Return the middles of `count` equal segments of range(length)."""
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]
