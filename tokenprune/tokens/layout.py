"""The layout of one image's visual tokens, and the mapping from its patches to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from math import prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from tokenprune.errors import PruningError

#: (t, h, w) of one raster of visual tokens, in raster order: frames, rows, columns.
Grid3 = tuple[int, int, int]


def one_to_one(values: Float[Tensor, "tiles patches"]) -> Float[Tensor, " visual"]:
    """Map each patch to one visual token, tile after tile."""
    return values.flatten()


@dataclass(frozen=True, eq=False)
class Layout:
    """The visual tokens of one image or video, in the order in which the language model sees them.

    grids: the rasters that they form, one after the other. Most models have one; an anyres model has the thumbnail's
        and then the canvas's, whose last column consists of newline tokens.
    n_tiles: the number of tiles or frames in which the vision tower sees the image.
    to_tokens: maps one number per patch of every tile to one per visual token, as the model maps the features.
    tiles: the tile of each visual token; None if there is only one. A tile's tokens form a rectangle in every raster
        that contains them.
    newlines: a mask of the newline tokens; None if there are none.
    left: the places within the rasters of the tokens that are left, ascending; None if none has been dropped. `grids`
        are those of the whole image.
    frame: the frame of each visual token of a video, -1 for tokens beside the frames; None for an image, and for a
        video whose frames are those of a raster. See `tokenprune.tokens.frames`.
    """

    grids: tuple[Grid3, ...]
    n_tiles: int = 1
    to_tokens: Callable[[Float[Tensor, "tiles patches"]], Float[Tensor, " visual"]] = one_to_one
    tiles: Int[Tensor, " visual"] | None = None
    newlines: Bool[Tensor, " visual"] | None = None
    left: Int[Tensor, " visual"] | None = None
    frame: Int[Tensor, " visual"] | None = None

    @classmethod
    def raster(cls, grid: Grid3) -> Layout:
        """Make the layout of an image with one visual token per patch."""
        return cls((grid,))

    @classmethod
    def squares(cls, rows: int, columns: int, side: int) -> Layout:
        """Make the layout of an image with one visual token per side x side square of its rows x columns patches.

        Patches that do not fill a square are left out.
        """
        to_tokens = partial(square_means, rows=rows, columns=columns, side=side)
        return cls(((1, rows // side, columns // side),), to_tokens=to_tokens)

    @classmethod
    def concat(cls, layouts: Sequence[Layout]) -> Layout:
        """Join the layouts of several tiles, one after the other, into that of one image; or, where each names its
        frames, into that of one video. Raises PruningError for frames of different sizes."""
        of_video = all(layout.frame is not None for layout in layouts)
        sides = dict.fromkeys(f"{height} x {width}" for layout in layouts for _, height, width in layout.grids)
        if of_video and len(sides) > 1:
            raise PruningError(
                f"the frames of one video must show the same places to be compared, and these have {', '.join(sides)} "
                f"visual tokens. Resize them to one size, or prune them as images, with the model's own adapter."
            )
        sizes = torch.tensor([layout.n_visual for layout in layouts], device="cpu")
        tiles = torch.arange(len(layouts), device="cpu").repeat_interleave(sizes)
        return cls(
            tuple(grid for layout in layouts for grid in layout.grids),
            sum(layout.n_tiles for layout in layouts),
            partial(to_tokens_each, layouts=tuple(layouts)),
            tiles,
            frame=tiles if of_video else None,
        )

    @property
    def n_visual(self) -> int:
        return sum(map(prod, self.grids)) if self.left is None else len(self.left)

    @property
    def grid(self) -> Grid3:
        """(t, h, w) of the only raster. Raises PruningError if there are several."""
        first, *others = self.grids
        if others:
            raise PruningError(f"these visual tokens form {len(self.grids)} grids, {self.grids}: read .grids instead.")
        return first

    def newline_mask(self, device: torch.device | str = "cpu") -> Bool[Tensor, " visual"]:
        """Return `newlines`, or an all-false mask if there are none."""
        if self.newlines is None:
            return torch.zeros(self.n_visual, dtype=torch.bool, device=device)
        return self.newlines.to(device)

    def coordinates(self) -> Int[Tensor, "visual 4"]:
        """Return the raster, frame, row and column of each visual token."""
        sides = [[range(i, i + 1), *map(range, grid)] for i, grid in enumerate(self.grids)]
        places = torch.cat(
            [
                torch.cartesian_prod(*(torch.tensor(side, device="cpu") for side in four)).reshape(-1, 4)
                for four in sides
            ]
        )
        return places if self.left is None else places[self.left.cpu()]

    def frame_numbers(self) -> Int[Tensor, " visual"]:
        """Return the frame of each visual token, numbered consecutively across rasters; -1 for newline tokens."""
        numbers = self.coordinates()[:, :2].unique(dim=0, return_inverse=True)[1]
        return numbers.masked_fill(self.newline_mask(), -1)

    def regions(self) -> Int[Tensor, " visual"]:
        """Return a number for each visual token that only tokens of the same raster, frame and tile share; -1 for
        newline tokens."""
        raster, frame = self.coordinates()[:, :2].T
        regions = raster * (frame.max() + 1) + frame
        if self.tiles is not None:
            tiles = self.tiles.cpu()
            regions = regions * (tiles.max() + 1) + tiles
        return regions.masked_fill(self.newline_mask(), -1)

    @property
    def n_rows(self) -> int:
        """The number of rows of all frames and rasters."""
        return sum(frames * height for frames, height, _ in self.grids)

    def rows(self, device: torch.device | str = "cpu") -> Int[Tensor, " visual"]:
        """Return the row of each visual token, numbered consecutively across frames and rasters."""
        ends = accumulate(frames * height for frames, height, _ in self.grids)
        rows = torch.cat(
            [
                torch.arange(end - frames * height, end, device=device).repeat_interleave(width)
                for end, (frames, height, width) in zip(ends, self.grids, strict=True)
            ]
        )
        return rows if self.left is None else rows[self.left.to(rows.device)]

    def of_tile(self, tile: int) -> tuple[Int[Tensor, " part"], Layout]:
        """Return the indices of one tile's visual tokens, and their layout, which maps from all tiles' patches."""
        assert self.tiles is not None
        index = (self.tiles == tile).nonzero()[:, 0]
        places = self.coordinates()[index.cpu()]
        rasters = [places[places[:, 0] == raster] for raster in places[:, 0].unique()]
        part = Layout(
            tuple((len(t.unique()), len(h.unique()), len(w.unique())) for _, t, h, w in (r.T for r in rasters)),
            self.n_tiles,
            lambda values: self.to_tokens(values)[index],
            newlines=None if self.newlines is None else self.newlines[index],
        )
        assert part.n_visual == len(index), "a tile's tokens must form rectangles"
        return index, part


def of_left(layout: Layout, index: Int[Tensor, " left"]) -> Layout:
    """Return the layout of the tokens that are left, which still maps from all tiles' patches."""

    def to_tokens(values: Float[Tensor, "tiles patches"]) -> Float[Tensor, " left"]:
        mapped = layout.to_tokens(values)
        return mapped[index.to(mapped.device)]

    def chosen(mask: Tensor | None) -> Tensor | None:
        return None if mask is None else mask[index.to(mask.device)]

    left = index if layout.left is None else layout.left[index.to(layout.left.device)]
    masks = {name: chosen(getattr(layout, name)) for name in ("tiles", "newlines", "frame")}
    return replace(layout, to_tokens=to_tokens, left=left, **masks)


def square_means(values: Float[Tensor, "one patches"], rows: int, columns: int, side: int) -> Float[Tensor, " visual"]:
    """Average every side x side square of a rows x columns raster of patches."""
    return avg_pool2d(values.view(1, rows, columns), side).flatten()


def to_tokens_each(values: Float[Tensor, "tiles patches"], layouts: Sequence[Layout]) -> Float[Tensor, " visual"]:
    """Map every tile's patches with the tile's own layout."""
    parts = values.split([layout.n_tiles for layout in layouts])
    return torch.cat([layout.to_tokens(part) for layout, part in zip(layouts, parts, strict=True)])
