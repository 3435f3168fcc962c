"""Inkling 2: grids count visual tokens; layers have a short convolution as well as attention. In Inkling, each visual
token is encoded on its own, from one square of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.layouts.tiles import run_starts
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.qwen import frames
from tokenprune.adapters.towers.tower import QueryKey, projected_points
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Inkling2ForConditionalGeneration", "Inkling2LoopForConditionalGeneration")
class Inkling2Adapter(KnownTowerAdapter):
    """For Inkling2ForConditionalGeneration and Inkling2LoopForConditionalGeneration.

    The language model's attention, windows included, knows only distances in the cache, so it is as if dropped tokens
    had never been there: position IDs make no difference.
    """

    def describe_tower(self) -> Tower:
        return TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        side = self.vision_tower.config.spatial_merge_size
        return [Layout.squares(rows * side, columns * side, side) for rows, columns in sizes(arguments)]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        grids = sizes(arguments)
        images = zip(arguments["pixel_values"].split([rows * columns for rows, columns in grids]), grids, strict=True)
        pattern = "(row column) y x channel -> channel (row y) (column x)"
        return [rearrange(image, pattern, column=columns) for image, (_, columns) in images]


def sizes(arguments: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Rows and columns of visual tokens of every image. The tower sees frames at once, as if they were further rows."""
    return [(n_frames * rows, columns) for n_frames, rows, columns in arguments["image_grid_thw"].tolist()]


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Rotated queries and keys of every image, of its CLS token first, from the projections of all images in one row,
    in which the patches of a visual token are adjacent."""
    cos, sin = (part[:, None].float() for part in call["attention"]["position_embeddings"])
    side, grids = config.spatial_merge_size, sizes(call["tower"])
    lengths = [1 + rows * columns * side**2 for rows, columns in grids]

    def by_image(row: Float[Tensor, "tokens heads_width"]) -> list[Tensor]:
        states = rearrange(row, "token (head width) -> token head width", head=config.num_attention_heads).float()
        first, second = states.unflatten(-1, (-1, 2)).unbind(-1)
        turned = states * cos + torch.stack([-second, first], -1).flatten(-2) * sin
        images = turned.to(row.dtype).split(lengths)
        return [in_raster(image, rows, columns) for image, (rows, columns) in zip(images, grids, strict=True)]

    def in_raster(image: Float[Tensor, "tokens heads width"], rows: int, columns: int) -> Tensor:
        grid = torch.tensor([[1, rows * side, columns * side]])
        (patches,) = frames(image[1:], grid, side)
        return rearrange(torch.cat([image[:1], patches]), "token head width -> head token width")

    return by_image(call["queries"]), by_image(call["keys"])


TOWER = Tower(attrgetter("layers"), projected_points, n_prefix=1, heads=heads)


@register_adapter("InklingForConditionalGeneration")
class InklingAdapter(GenericAdapter):
    """For InklingForConditionalGeneration. As in Inkling 2, position IDs make no difference. Audio stays.

    The model knows neither which squares belong to one image nor where they are in it, but the processor writes them
    without a gap: a run of placeholder tokens is an image.
    """

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        return run_starts(visual)
