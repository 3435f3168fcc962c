"""Mistral 3 and LightOn OCR: images of any size, whose visual tokens are each merged from a square of patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenprune.adapters.families.llava import LlavaAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers.layers import BatchLayers, RowLayers
from tokenprune.adapters.towers.row import pixel_sizes
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Mistral3ForConditionalGeneration", "MistralLarge4ForConditionalGeneration")
class Mistral3Adapter(LlavaAdapter):
    """For Mistral3- and MistralLarge4ForConditionalGeneration. The processor writes a marker after every row of visual
    tokens; markers are text and stay."""

    def check_patches(self) -> None:
        """Accept any setting: the projector always gets the whole output of the tower."""

    @property
    def tower_layers(self) -> BatchLayers | RowLayers | None:
        return self.layers_by_merge(self.config.spatial_merge_size)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        patch, merge = self.vision_tower.config.patch_size, self.config.spatial_merge_size
        return [Layout.squares(h // patch, w // patch, merge) for h, w in pixel_sizes(arguments)]


@register_adapter("LightOnOcrForConditionalGeneration")
class LightOnOcrAdapter(Mistral3Adapter):
    """For LightOnOcrForConditionalGeneration, whose processor writes no markers between the rows of visual tokens."""

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_encoder", None)

    @property
    def feature_layers(self) -> int:
        return -1
