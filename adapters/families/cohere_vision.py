"""Cohere 2 Vision and Aya Vision: square tiles, whose visual tokens each combine a square of patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.families.llava import LlavaAdapter
from tokenprune.adapters.layouts.tiles import starts_after_gaps
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import TOWERS, Tower
from tokenprune.adapters.towers.tower import CLIP_COLORS
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


def with_clip_colors(tower: Tower) -> Tower:
    """A tower whose images are normalised as CLIP's are."""
    return replace(tower, normalisation=CLIP_COLORS)


#: The tower that vLLM has.
TOWER = with_clip_colors(TOWERS["siglip_vision_model"])


@register_adapter("Cohere2VisionForConditionalGeneration")
class Cohere2VisionAdapter(ModelAdapter):
    """For Cohere2VisionForConditionalGeneration. The model does not know which tiles belong to one image; the processor
    writes one token between them, and more between images."""

    def describe_tower(self) -> Tower:
        return with_clip_colors(super().describe_tower())

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        return starts_after_gaps(visual, more_than=1)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        tiles, patch = arguments[modality.pixels], self.vision_tower.config.patch_size
        rows, columns = tiles.shape[-2] // patch, tiles.shape[-1] // patch
        return [Layout.squares(rows, columns, self.config.downsample_factor)] * len(tiles)


@register_adapter("AyaVisionForConditionalGeneration")
class AyaVisionAdapter(Cohere2VisionAdapter, LlavaAdapter):
    """For AyaVisionForConditionalGeneration, whose projector may read several layers of the tower."""
