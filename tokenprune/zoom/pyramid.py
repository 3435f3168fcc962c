"""The dynamic image pyramid (DIP, https://arxiv.org/abs/2503.07588): a large picture as levels of square tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

#: (left, top, right, bottom) in pixels of the whole picture.
Box = tuple[float, float, float, float]

#: Tiles along the long side of the coarsest level.
COARSEST = 3
#: How many times the coarsest level's resolution the next one has at least. The paper has no such bound, and so levels
#: of 3 and of 4 tiles a side.
STEP = 1.5


@dataclass(frozen=True)
class View:
    """One square that a model is shown: the thumbnail, or a tile of a level.

    box: what it shows. What lies beyond the right or the lower edge of the picture is black.
    level: 0 for the coarsest level of tiles; None for the thumbnail.
    row, column: which tile of its level it is.
    """

    box: Box
    level: int | None = None
    row: int = 0
    column: int = 0

    def picture(self, whole: Any, tile: int) -> Any:
        """The square of tile x tile pixels, cut from the whole PIL picture."""
        from PIL import Image

        left, top, right, bottom = self.box
        inside = (left, top, min(right, whole.width), min(bottom, whole.height))
        scale = tile / (right - left)
        size = [max(1, round((inside[i + 2] - inside[i]) * scale)) for i in (0, 1)]
        cut = whole.resize(size, Image.Resampling.BILINEAR, box=inside, reducing_gap=3.0)
        return cut if cut.size == (tile, tile) else cut.crop((0, 0, tile, tile))

    def in_whole(self, box: Box) -> Box:
        """A box in fractions of this view, in pixels of the whole picture."""
        left, top, right, bottom = self.box
        width, height = right - left, bottom - top
        x1, y1, x2, y2 = box
        return left + x1 * width, top + y1 * height, left + x2 * width, top + y2 * height


@dataclass(frozen=True)
class Level:
    """A picture of `width` x `height` pixels under rows x columns tiles.

    span: the side of a tile, in pixels of the picture. A whole number of tiles covers one of its sides exactly; on
        the other, the last tiles may lie partly beyond it.
    """

    number: int
    width: int
    height: int
    rows: int
    columns: int

    @cached_property
    def span(self) -> float:
        return max(self.width / self.columns, self.height / self.rows)

    def view(self, row: int, column: int) -> View:
        x, y = column * self.span, row * self.span
        return View((x, y, x + self.span, y + self.span), self.number, row, column)

    def views(self) -> Iterator[View]:
        """All of its tiles, row by row."""
        return (self.view(row, column) for row in range(self.rows) for column in range(self.columns))

    def tile_at(self, x: float, y: float) -> tuple[int, int] | None:
        """Row and column of the tile that shows a point of the picture; None for a point beyond its edges."""
        if not (0 <= x < self.width and 0 <= y < self.height):
            return None
        return min(self.rows - 1, int(y / self.span)), min(self.columns - 1, int(x / self.span))


def thumbnail(width: int, height: int) -> View:
    """The whole picture, made a square by black below it or beside it."""
    return View((0.0, 0.0, float(max(width, height)), float(max(width, height))))


def pyramid(width: int, height: int, tile: int) -> tuple[Level, ...]:
    """The levels of a picture, the coarsest first; its long side has three tiles there, or what the picture's own
    resolution gives where that is about as little.

    The last has the picture's own resolution, and each half that of the next, but for the coarsest. There is no level
    for a picture that one tile shows.
    """
    longest = max(width, height)
    if longest <= tile:
        return ()
    smallest = min(1.0, COARSEST * tile / longest)
    scales = [1.0]
    while scales[-1] / 2 >= STEP * smallest:
        scales.append(scales[-1] / 2)
    if scales[-1] >= STEP * smallest:
        scales.append(smallest)
    return tuple(
        Level(number, width, height, _tiles(height * scale, tile), _tiles(width * scale, tile))
        for number, scale in enumerate(reversed(scales))
    )


def _tiles(length: float, tile: int) -> int:
    """How many tiles a side has, of a picture that is scaled to whole pixels first."""
    return math.ceil(max(1, round(length)) / tile)
