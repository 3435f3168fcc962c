"""LFM2-VL: tiles of any shape, padded to the same number of patches; several are followed by a smaller overview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.layouts.padded import padded_squares
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.tower import QueryKey, encoder_layers, projected_points
from tokenprune.encoded import Modality
from tokenprune.tokens.attention import split_heads
from tokenprune.tokens.layout import Layout


@register_adapter("Lfm2VlForConditionalGeneration")
class Lfm2VlAdapter(ModelAdapter):
    """For Lfm2VlForConditionalGeneration, most of whose decoder layers are short convolutions.

    Tiles and the overview of an image, of different sizes, count as images of their own.
    """

    since = (5, 24)

    def describe_tower(self) -> Tower:
        return TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        shapes = arguments["spatial_shapes"].tolist()
        return [padded_squares(rows, columns, self.config.downsample_factor) for rows, columns in shapes]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        patch = self.vision_tower.config.patch_size
        tiles = zip(arguments["pixel_values"], arguments["spatial_shapes"].tolist(), strict=True)
        return [tile_image(patches, rows, columns, patch) for patches, (rows, columns) in tiles]


def tile_image(
    patches: Float[Tensor, "patches values"], rows: int, columns: int, patch: int
) -> Float[Tensor, "channels height width"]:
    """Assemble a tile from its patches, which padding may follow."""
    pattern = "(row column) (y x channel) -> channel (row y) (column x)"
    return rearrange(patches[: rows * columns], pattern, column=columns, y=patch, x=patch)


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Queries and keys of every tile, and which patches are real."""
    queries, keys = (list(split_heads(call[part], config.num_attention_heads)) for part in ("queries", "keys"))
    real = call["tower"].get("pixel_attention_mask")
    if real is None:  # every patch is one of the image
        real = torch.ones(len(keys), keys[0].shape[1], device=keys[0].device)
    return queries, keys, list(real.bool())


TOWER = Tower(encoder_layers, projected_points, n_prefix=0, heads=heads)
