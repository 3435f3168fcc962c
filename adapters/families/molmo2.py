"""Molmo 2: a small version of an image, then overlapping crops, whose patches are pooled into one canvas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isqrt
from operator import attrgetter
from typing import Any

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.tower import projected_points
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Grid3, Layout


@register_adapter("Molmo2ForConditionalGeneration")
class Molmo2Adapter(ModelAdapter):
    """For Molmo2ForConditionalGeneration. All visual tokens and markers of a row attend to each other. Images and
    videos have the same placeholder token; a call has one or the other."""

    noncausal = True
    takes_video = True

    def describe_tower(self) -> Tower:
        return TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        if modality.name == "image":
            grids = [((1, h, w), (1, rows, columns)) for h, w, rows, columns in arguments["image_grids"].tolist()]
        else:
            grids = [(tuple(grid),) for grid in arguments["video_grids"].tolist()]
        pooled = arguments[f"{modality.name}_token_pooling"].split([len(image) for image in output.pooler_output])
        n_patches = arguments[modality.pixels].shape[-2]
        return [pooled_layout(grid, indices, n_patches) for grid, indices in zip(grids, pooled, strict=True)]

    def consumed_layer(self, n_layers: int) -> int:
        """The last of the layers whose output is pooled."""
        return max(layer % n_layers for layer in self.config.adapter_config.vision_feature_layer)

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        patch, side = self.vision_tower.config.patch_size, isqrt(arguments["pixel_values"].shape[1])
        pattern = "tile (row column) (y x channel) -> tile channel (row y) (column x)"
        return list(rearrange(arguments["pixel_values"], pattern, row=side, column=side, y=patch, x=patch))


def pooled_layout(grids: tuple[Grid3, ...], indices: Int[Tensor, "visual pooled"], n_patches: int) -> Layout:
    """The layout of an image or video whose visual tokens each pool patches: `indices` among the patches of all crops
    of a call, -1 for none. A token belongs to the crop of its first patch."""
    valid = indices >= 0
    first_crop = int(indices[valid].min()) // n_patches
    own = (indices - first_crop * n_patches).masked_fill(~valid, -1)
    crops = own.masked_fill(~valid, n_patches * len(own)).amin(1) // n_patches
    n_crops = int(own.max()) // n_patches + 1
    return Layout(grids, n_crops, partial(pool, indices=own), crops.cpu() if n_crops > 1 else None)


def pool(values: Float[Tensor, "tiles patches"], indices: Int[Tensor, "visual pooled"]) -> Float[Tensor, " visual"]:
    """Average the patches of every visual token."""
    indices = indices.to(values.device)
    valid = indices >= 0
    patches = values.flatten()[indices.clamp(min=0)] * valid
    return patches.sum(1) / valid.sum(1)


TOWER = Tower(attrgetter("layers"), projected_points, n_prefix=0)
