"""The layout of a drawing: the rasters of an image's visual tokens over the parts of it that they show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from tokenprune.errors import UnsupportedError
from tokenprune.evals.boxes import Box, parts_of, within
from tokenprune.evals.models.image_view import ImageView
from tokenprune.evals.reading.videos import Clip
from tokenprune.prompts import encode_chat
from tokenprune.tokens import Frames, Layout

SIDE = 1000.0  # the longer side of what one raster shows, in the canvas's units
GAP = 30.0
MOST_PIXELS = 900  # of the longer side of a raster's image
OUTSIDE = (127, 127, 127)  # padding beyond the image's edges
#: The processors' names for tiles, in the order of their visual tokens: crops, if separate from the whole image.
TILES = ("pixel_values_local", "pixel_values")


@dataclass(frozen=True, eq=False)
class Raster:
    """One raster of visual tokens over the part of the image it shows.

    place: where it is on the canvas.
    image: what it shows.
    tokens: rows x columns indices within the image's visual tokens, newline tokens left out; none where an image is
        shown for its boxes alone.
    window: the part of the given image that it shows, in that image's pixels; None if the model cut a tile and does not
        say where.
    """

    place: Box
    image: Image.Image
    tokens: np.ndarray
    window: Box | None

    def on_canvas(self, box: Box) -> Box | None:
        """A box in pixels of the given image, clipped to what this raster shows; None if that is unknown."""
        return None if self.window is None else within(self.place, parts_of(self.window, box))


@dataclass(frozen=True, eq=False)
class Canvas:
    """All rasters of one image beside or above each other, in `width` x `height` units."""

    width: float
    height: float
    rasters: tuple[Raster, ...]

    def boxes(self, box: Box) -> list[Box]:
        """A box in pixels of the given image, once for each raster that shows the whole view."""
        return [placed for raster in self.rasters if (placed := raster.on_canvas(box)) is not None]


def canvas(image: Image.Image, layout: Layout | None, seen: ImageView, tiles: Sequence[Image.Image] = ()) -> Canvas:
    """Lay out the rasters of `layout`; the image alone if it is None, where visual tokens have no place in the image.

    seen: the part of the image that the model sees. tiles: what the processor cuts the image into, for a layout that is
        `in_tiles`; such a canvas begins with the image itself, because only that can show boxes.
    """
    view = _view(image, seen.window)
    alone = (view, np.zeros((0, 0), dtype=int), seen.window)
    if layout is None:
        return _mosaic([alone])
    tokens = _rasters(layout)
    shown: list[tuple[Image.Image, np.ndarray, Box | None]]
    if in_tiles(layout):
        if len(tiles) != len(tokens):
            raise UnsupportedError(
                f"the processor cut the image into {len(tiles)} tiles, but the model saw {len(tokens)}, so it is not "
                f"known where they lie, and nothing can be drawn. Measure it instead: tokenprune eval"
            )
        shown = [alone, *((tile, index, None) for tile, index in zip(tiles, tokens, strict=True))]
    else:
        shown = [(view, index, seen.window) for index in tokens]
    return _mosaic(shown)


def clip_canvas(clip: Clip, layout: Layout) -> Canvas:
    """Lay out the frames of a video. If the model merges frames, the first of each group is shown."""
    frames = Frames.of(layout)
    if frames is None:
        raise UnsupportedError("the model sees this video as one frame: read more with --frames")
    rows = layout.coordinates()[frames.frame_tokens[0], 2].unique().numel()
    merged = math.ceil(len(clip.frames) / frames.n_frames)
    shown: list[tuple[Image.Image, np.ndarray, Box | None]] = []
    for number, places in enumerate(frames.frame_tokens):
        frame = clip.frames[min(number * merged, len(clip.frames) - 1)]
        whole = _view(frame, (0.0, 0.0, float(frame.width), float(frame.height)))
        shown.append((whole, places.numpy().reshape(rows, -1), None))
    return _mosaic(shown)


def shrunk(whole: Canvas, grid: tuple[int, int], patch: int) -> Canvas:
    """Return the canvas of an image that was shrunk to a grid of patches, from that of the whole image."""
    (raster,), (rows, columns) = whole.rasters, grid
    small = raster.image.resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
    return replace(whole, rasters=(replace(raster, image=small, tokens=np.arange(rows * columns).reshape(grid)),))


def in_tiles(layout: Layout) -> bool:
    """Whether each raster shows a tile of the image. Otherwise each shows all of it: an overview and a canvas that the
    model assembles from tiles, or the only tile."""
    if layout.newlines is not None or layout.tiles is None or len(layout.grids) < 3:
        return False
    rasters, tiles = layout.coordinates()[:, 0], layout.tiles.cpu()
    return all(len(tiles[rasters == number].unique()) == 1 for number in range(len(layout.grids)))


def tiles_of(processor: Any, image: Image.Image, question: str) -> list[Image.Image]:
    """Return the tiles that a processor makes of an image for a prompt, in the order of their visual tokens."""
    made = encode_chat(processor, [[image]], [question], do_rescale=False, do_normalize=False)
    stacks = [made[name].flatten(0, -4) for name in TILES if name in made and made[name].ndim >= 4]
    tiles = (tile.permute(1, 2, 0).clamp(0, 255).byte().numpy() for stack in stacks for tile in stack)
    return list(map(Image.fromarray, tiles))


def _rasters(layout: Layout) -> list[np.ndarray]:
    """The indices of each raster's visual tokens, as rows x columns; those of several frames stand below each other."""
    places = layout.coordinates().numpy()
    newlines = np.zeros(len(places), dtype=bool) if layout.newlines is None else layout.newlines.cpu().numpy()
    grids = []
    for number in range(len(layout.grids)):
        own = np.flatnonzero((places[:, 0] == number) & ~newlines)
        if len(own):
            grids.append(own.reshape(len(np.unique(places[own, 1:3], axis=0)), -1))
    return grids


def _view(image: Image.Image, window: Box) -> Image.Image:
    """Crop an image to what the model saw, in the image's own proportions."""
    left, top, right, bottom = window
    scale = min(1.0, MOST_PIXELS / max(right - left, bottom - top))
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    box = (round(left), round(top), round(right), round(bottom))
    whole = Image.new("RGB", (max(1, box[2] - box[0]), max(1, box[3] - box[1])), OUTSIDE)
    whole.paste(image, (-box[0], -box[1]))
    return whole.resize(size, Image.Resampling.LANCZOS)


def _mosaic(shown: Sequence[tuple[Image.Image, np.ndarray, Box | None]]) -> Canvas:
    """Cells of equal size, in the number of columns that comes closest to a square."""
    aspect = shown[0][0].width / shown[0][0].height
    width, height = (SIDE, SIDE / aspect) if aspect >= 1 else (SIDE * aspect, SIDE)

    def size(columns: int) -> tuple[float, float]:
        rows = math.ceil(len(shown) / columns)
        return columns * (width + GAP) - GAP, rows * (height + GAP) - GAP

    columns = min(range(1, len(shown) + 1), key=lambda n: abs(math.log(size(n)[0] / size(n)[1])))
    rasters = []
    for number, (image, tokens, window) in enumerate(shown):
        row, column = divmod(number, columns)
        scale = min(width / image.width, height / image.height)
        own = image.width * scale, image.height * scale
        left = column * (width + GAP) + (width - own[0]) / 2
        top = row * (height + GAP) + (height - own[1]) / 2
        rasters.append(Raster((left, top, left + own[0], top + own[1]), image, tokens, window))
    return Canvas(*size(columns), tuple(rasters))
