"""MiniCPM-V and MiniCPM-OCR: an overview and slices of any size, the patches of all of them in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isqrt
from typing import Any

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.tower import QueryKey, encoder_layers, projected_points
from tokenprune.encoded import Modality
from tokenprune.tokens.attention import split_heads
from tokenprune.tokens.layout import Layout, square_means


@register_adapter(
    "MiniCPMV4_6ForConditionalGeneration", "MiniCPMV4_7ForConditionalGeneration", "MiniCPMOcrForConditionalGeneration"
)
class MiniCPMAdapter(ModelAdapter):
    """For MiniCPMV4_6-, MiniCPMV4_7- and MiniCPMOcrForConditionalGeneration, most of whose decoder layers have a state.

    The overview and each slice, all of different sizes, count as images of their own; so does each frame of a video.
    """

    splits_videos = "each frame counts as a video of its own"

    @property
    def takes_video(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.config.video_token_id is not None

    def describe_tower(self) -> Tower:
        return TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        grids = arguments["target_sizes" if modality.name == "image" else "target_sizes_videos"]
        both = zip(grids.tolist(), output.pooler_output, strict=True)
        return [tile_layout(rows, columns, len(tile)) for (rows, columns), tile in both]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        grids, patch = arguments["target_sizes"], arguments["pixel_values"].shape[2]
        tiles = arguments["pixel_values"][0].split((grids.prod(-1) * patch).tolist(), -1)
        return [tile_image(tile, rows, columns) for tile, (rows, columns) in zip(tiles, grids.tolist(), strict=True)]


def tile_image(
    patches: Float[Tensor, "channels patch patches_width"], rows: int, columns: int
) -> Float[Tensor, "channels height width"]:
    """Assemble a tile from its patches, which lie side by side, possibly before padding."""
    patch = patches.shape[1]
    real = patches[..., : rows * columns * patch]
    return rearrange(real, "channel y (row column x) -> channel (row y) (column x)", column=columns, x=patch)


def tile_layout(rows: int, columns: int, n_visual: int) -> Layout:
    """The layout of a tile of rows x columns patches. The tower merges patches between layers, so a map has one value
    per square of patches, whose size follows from the map's length."""
    side = isqrt(rows * columns // n_visual)
    grid = (1, rows // side, columns // side)
    return Layout((grid,), to_tokens=partial(means, rows=rows // side, columns=columns // side))


def means(values: Float[Tensor, "one squares"], rows: int, columns: int) -> Float[Tensor, " visual"]:
    """Average the squares that each of the rows x columns visual tokens is made of."""
    side = isqrt(values.shape[1] // (rows * columns))
    return square_means(values, rows * side, columns * side, side)


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Queries and keys of every tile, from the projections of all tiles in one row."""
    grids: Int[Tensor, "tiles 2"] = call["tower"]["target_sizes"]
    n_patches, n_states = int(grids.prod(-1).sum()), call["queries"].shape[1]
    sizes = (grids.prod(-1) // (n_patches // n_states)).tolist()
    queries, keys = (split_heads(call[part], config.num_attention_heads)[0] for part in ("queries", "keys"))
    return queries.split(sizes, 1), keys.split(sizes, 1)


TOWER = Tower(encoder_layers, projected_points, n_prefix=0, heads=heads)
