"""InternVL and Qianfan-OCR: square tiles, whose visual tokens each combine 2 x 2 patches (pixel shuffle)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from tokenprune.adapters.families.llava import LlavaAdapter
from tokenprune.adapters.layouts.tiles import run_starts
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers.layers import BatchLayers, square_patches
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("InternVLForConditionalGeneration", prompt_style="internvl")
class InternVLAdapter(LlavaAdapter):
    """For InternVLForConditionalGeneration. The model does not know which tiles belong to one image, but the processor
    writes them without a gap: a run of placeholder tokens is an image. So is each frame of a video."""

    splits_videos = "its processor writes every frame of a video as an image"

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        tiles, (height, width) = arguments[modality.pixels], self.vision_tower.config.patch_size
        merge = int(1 / self.config.downsample_ratio)
        return [Layout.squares(tiles.shape[-2] // height, tiles.shape[-1] // width, merge)] * len(tiles)

    @property
    def tower_layers(self) -> BatchLayers | None:
        vision = self.vision_tower
        merge = int(1 / self.config.downsample_ratio)
        patches = partial(_tile_patches, patch=tuple(vision.config.patch_size), merge=merge)
        n_before = self.consumed_layer(len(self.tower.layers(vision)))
        return BatchLayers.of(self.tower, vision, n_before, patches, whole_images=False)

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        return run_starts(visual)


def _tile_patches(arguments: Mapping[str, Any], patch: tuple[int, int], merge: int) -> Int[Tensor, "visual patches"]:
    """The patches of each visual token of a tile, from the arguments of the tower."""
    height, width = arguments["pixel_values"].shape[-2:]
    return square_patches(height // patch[0], width // patch[1], merge)


@register_adapter("QianfanOCRForConditionalGeneration")
class QianfanOCRAdapter(InternVLAdapter):
    """For QianfanOCRForConditionalGeneration. A run of placeholder tokens is an image, with all its tiles."""
