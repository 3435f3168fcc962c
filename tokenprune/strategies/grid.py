"""The evenly spread baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tokenprune.strategy import Selection, Strategy
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class Grid(Strategy):
    """Keeps visual tokens spread evenly over the grid: about as many rows and columns as the budget allows."""

    def select(self, tokens: VisualTokens) -> Selection:
        frames, height, width = tokens.grid
        kept = [
            (frame * height + row) * width + column
            for frame, n_frame in enumerate(shares(self.budget(tokens.n_visual), frames))
            for row, column in lattice(n_frame, height, width)
        ]
        return Selection(torch.tensor(kept, device=tokens.features.device), tokens.n_visual)


def lattice(count: int, height: int, width: int) -> list[tuple[int, int]]:
    """`count` cells of a height x width grid in raster order, evenly spaced on evenly spaced rows."""
    n_rows = min(max(round(math.sqrt(count * height / width)), math.ceil(count / width)), height)
    return [
        (row, column)
        for row, n_columns in zip(centres(n_rows, height), shares(count, n_rows), strict=True)
        for column in centres(n_columns, width)
    ]


def shares(count: int, parts: int) -> list[int]:
    """`count` split into `parts` integers that differ by at most one, the larger ones spread evenly."""
    return [(i + 1) * count // parts - i * count // parts for i in range(parts)]


def centres(count: int, length: int) -> list[int]:
    """The middles of `count` equal segments of range(length)."""
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]
