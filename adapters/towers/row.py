"""Vision towers that take the patches of all images in one row and work without some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from tokenprune.errors import PruningError
from tokenprune.tokens.layout import Grid3


@dataclass(frozen=True, eq=False)
class Row:
    """The patches of one call of a tower.

    images: (t, h, w) of the visual tokens of every image or video.
    tokens: the visual token that each patch belongs to, for patches in the tower's input order.
    order: the patches in the order of the tower's layers; None if that is the same.
    in_tiles: like `tokens`, but for patches tile after tile in raster order.
    tiles: the number of patches of every tile.
    n_prefix: the number of tokens that the layers have before the patches of every tile, and that are never dropped.
    places: the place of each visual token among those of all images in raster order; None if that is its own number.
    """

    images: tuple[Grid3, ...]
    tokens: Int[Tensor, " patches"]
    order: Int[Tensor, " patches"] | None
    in_tiles: Int[Tensor, " patches"]
    tiles: tuple[int, ...]
    n_prefix: int = 0
    places: Int[Tensor, " visual"] | None = None

    @property
    def in_layers(self) -> Int[Tensor, " rows"]:
        """The visual token that each row of the layers' hidden states belongs to; -1 for prefix tokens."""
        patches = self.tokens if self.order is None else self.tokens[self.order]
        if not self.n_prefix:
            return patches
        prefix = patches.new_full((self.n_prefix,), -1)
        return torch.cat([part for tile in patches.split(self.tiles) for part in (prefix, tile)])


@dataclass(frozen=True)
class PatchRow:
    """How a tower takes the patches of all images. Its layers get them as (patches, width), possibly in a batch of one,
    with rotary embeddings along them and `cu_seqlens`, the ends of the segments within which patches attend.

    pixels: the tower's argument that holds the patches, each channel after channel.
    describe: returns the row of a call, from the grids in patches and the tower's config.
    output_modules: returns the modules of a tower that get the output of its layers. They return one row per patch or,
        if the patches of a visual token are adjacent in the layers, one per visual token.
    """

    pixels: str
    describe: Callable[[Int[Tensor, "images 3"], Any], Row]
    output_modules: Callable[[Any], Sequence[nn.Module]]

    def of_call(self, arguments: Mapping[str, Any], config: Any) -> Row:
        """The row of a call, from the arguments of the tower by name."""
        return self.describe(arguments["grid_thw"], config)


def adjacent(grids: Int[Tensor, "images 3"], config: Any) -> Row:
    """The row of a tower in which the patches of a visual token are adjacent."""
    frames = raster(grids, config)
    return replace(frames, tokens=frames.tokens.sort().values)


def raster(grids: Int[Tensor, "images 3"], config: Any) -> Row:
    """The row of a tower in which every frame is in raster order."""
    return raster_of(grids.tolist(), config.spatial_merge_size, grids.device)


def raster_of(grids: Sequence[Sequence[int]], merge: int, device: torch.device) -> Row:
    """`raster`, from grids in patches, merge x merge of which become a visual token."""
    images = [(frames, height // merge, width // merge) for frames, height, width in grids]
    tokens, start = [], 0
    for (frames, height, width), image in zip(grids, images, strict=True):
        tokens.append(start + _squares(frames, height, width, merge))
        start += prod(image)
    sizes = tuple(height * width for frames, height, width in grids for _ in range(frames))
    return _row(images, tokens, sizes, device)


def raster_chunks(grids: Int[Tensor, "images 3"], config: Any) -> Row:
    """The row of a tower with every frame in raster order, where each place, in all frames, is one visual token."""
    merge, _ = config.merge_kernel_size
    images = [(1, height // merge, width // merge) for _, height, width in grids.tolist()]
    tokens, start = [], 0
    for (frames, height, width), image in zip(grids.tolist(), images, strict=True):
        tokens.append(start + _squares(1, height, width, merge).repeat(frames))
        start += prod(image)
    return _row(images, tokens, tuple(map(prod, grids.tolist())), grids.device)


def _row(images: list[Grid3], tokens: list[Tensor], sizes: tuple[int, ...], device: torch.device) -> Row:
    row = torch.cat(tokens).to(device)
    return Row(tuple(images), row, None, row, sizes)


def _squares(frames: int, height: int, width: int, side: int) -> Int[Tensor, " patches"]:
    """The visual token of each patch of some frames in raster order; a token has side x side patches."""
    tokens = torch.arange(frames * (height // side) * (width // side)).view(frames, height // side, width // side)
    return tokens.repeat_interleave(side, 1).repeat_interleave(side, 2).flatten()


def pixel_sizes(arguments: Mapping[str, Any], name: str = "pixel_values") -> list[tuple[int, int]]:
    """(height, width) in pixels of each image of a call, without the batch's padding."""
    pixels, sizes = arguments[name], arguments.get("image_sizes")
    return [tuple(pixels.shape[-2:])] * len(pixels) if sizes is None else [(int(h), int(w)) for h, w in sizes]


def image_row(arguments: Mapping[str, Any], patch: int, merge: int) -> Row:
    """The row of a tower that packs the patches of all images, each in raster order, merge x merge of which become a
    visual token. Raises PruningError for an image with patches that do not become part of one."""
    grids = [(1, height // patch, width // patch) for height, width in pixel_sizes(arguments)]
    for _, rows, columns in grids:
        if rows % merge or columns % merge:
            raise PruningError(
                f"an image of {rows} x {columns} patches does not divide into squares of {merge} x {merge}, which "
                f"become visual tokens, so the vision tower cannot be pruned. Let the model's processor resize the "
                f"images, or use a strategy that prunes after the tower, such as FoPru."
            )
    return raster_of(grids, merge, arguments["pixel_values"].device)
