"""PaliGemma: an image is one square of patches, in front of a prompt whose tokens all attend to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers.layers import BatchLayers, tokenwise_projector
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter(
    "PaliGemmaForConditionalGeneration", prompt_style="paligemma", processor="PaliGemmaProcessor", types_answers=True
)
class PaliGemmaAdapter(ModelAdapter):
    """For PaliGemma 1 and 2. Its position IDs start at 1."""

    noncausal = True
    tokenwise = "PaliGemmaMultiModalProjector"

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        pixels, patch = arguments[modality.pixels], self.vision_tower.config.patch_size
        return [Layout.raster((1, pixels.shape[-2] // patch, pixels.shape[-1] // patch))] * len(pixels)

    @property
    def tower_layers(self) -> BatchLayers | None:
        n_before = self.consumed_layer(len(self.tower.layers(self.vision_tower)))
        return BatchLayers.of(self.tower, self.vision_tower, n_before, projector=tokenwise_projector(self))
