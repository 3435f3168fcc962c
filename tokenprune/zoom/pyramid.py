"""The dynamic image pyramid (DIP, https://arxiv.org/abs/2503.07588): a large image as levels of square tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenprune.errors import SettingError

#: (left, top, right, bottom) in pixels of the whole image.
Box = tuple[float, float, float, float]

#: Tiles along the long side of the coarsest level.
COARSEST = 3
#: The least ratio of the second-coarsest level's resolution to the coarsest level's. The paper has no such bound, and
#: therefore may have levels of 3 and of 4 tiles per side.
STEP = 1.5


@dataclass(frozen=True)
class View:
    """A square that the model is shown: the thumbnail, or a tile of a level.

    box: the part of the image that it shows. Beyond the right or lower edge of the image it is black.
    level: 0 for the coarsest level of tiles; None for the thumbnail.
    row, column: the position of the tile in its level.
    """

    box: Box
    level: int | None = None
    row: int = 0
    column: int = 0

    def __str__(self) -> str:
        left, top, right, bottom = (round(edge) for edge in self.box)
        place = "thumbnail" if self.level is None else f"level {self.level}, row {self.row}, column {self.column}"
        return f"{place} ({left}, {top}, {right}, {bottom})"

    def crop(self, image: Any, tile: int) -> Any:
        """The square of tile x tile pixels, cut from the whole PIL image."""
        from PIL import Image

        left, top, right, bottom = self.box
        inside = (left, top, min(right, image.width), min(bottom, image.height))
        scale = tile / (right - left)
        size = [max(1, round((inside[i + 2] - inside[i]) * scale)) for i in (0, 1)]
        cut = image.resize(size, Image.Resampling.BILINEAR, box=inside, reducing_gap=3.0)
        return cut if cut.size == (tile, tile) else cut.crop((0, 0, tile, tile))

    def in_whole(self, box: Box) -> Box:
        """Convert a box in fractions of this view to pixels of the whole image."""
        left, top, right, bottom = self.box
        width, height = right - left, bottom - top
        x1, y1, x2, y2 = box
        return left + x1 * width, top + y1 * height, left + x2 * width, top + y2 * height


@dataclass(frozen=True)
class Level:
    """An image of `width` x `height` pixels, covered by rows x columns tiles.

    span: the side of a tile, in pixels of the image. A whole number of tiles covers one side of the image exactly; on
        the other side, the last tiles may extend beyond the edge.
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
        """All tiles, row by row."""
        return (self.view(row, column) for row in range(self.rows) for column in range(self.columns))

    def tile_at(self, x: float, y: float) -> tuple[int, int] | None:
        """Row and column of the tile that shows a point of the image; None for a point outside the image."""
        if not (0 <= x < self.width and 0 <= y < self.height):
            return None
        return min(self.rows - 1, int(y / self.span)), min(self.columns - 1, int(x / self.span))


def as_rgb(image: Any) -> Any:
    """The PIL image in RGB, in which it can be resized smoothly and zeros are black. Raises SettingError for anything
    else."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise SettingError(f"Zoom: a {type(image).__name__} is not a PIL image. Open it: PIL.Image.open(path).")
    if image.mode == "F" or image.mode.startswith("I"):
        raise SettingError(
            f"Zoom: an image of mode {image.mode!r} has more than 8 bits for each pixel, and Pillow would cut them off "
            f'instead of scaling them. Scale it, one of 16 bits like this: image.convert("I").point(lambda level: '
            f'level / 257).convert("L").'
        )
    return image if image.mode == "RGB" else image.convert("RGB")


def thumbnail(width: int, height: int) -> View:
    """The whole image, padded to a square with black below it or on its right."""
    return View((0.0, 0.0, float(max(width, height)), float(max(width, height))))


def input_side(processor: Any) -> int:
    """The side, in pixels, of the square that the processor resizes a square image to.

    Raises SettingError if it has no fixed size.
    """
    image_processor = processor.image_processor
    cropped = getattr(image_processor, "do_center_crop", False)
    size = dict((image_processor.crop_size if cropped else image_processor.size) or {})  # Gemma 4's has no size at all
    sides = {size[name] for name in ("height", "width", "shortest_edge") if size.get(name) is not None}
    if len(sides) != 1 or size.get("longest_edge") is not None:
        raise SettingError(
            f"{type(image_processor).__name__} resizes to no fixed size, so Zoom cannot derive the size of a tile. "
            f"Give it: Zoom(tile=448)."
        )
    return int(sides.pop())


def pyramid(width: int, height: int, tile: int) -> tuple[Level, ...]:
    """The levels of an image, coarsest first.

    The last level has the image's own resolution, and each earlier one half the resolution of the next, except the
    coarsest: there, the long side has three tiles, or as many as it has at the image's own resolution, if that is about
    as few. An image that fits into one tile has no levels.
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
    """The number of tiles along a side, after scaling it to whole pixels."""
    return math.ceil(max(1, round(length)) / tile)
