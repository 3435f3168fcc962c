"""DeepSeek-VL and Janus: an image is one square of patches; the hybrid adds a second tower's features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter(
    "DeepseekVLForConditionalGeneration",
    "DeepseekVLHybridForConditionalGeneration",
    "JanusForConditionalGeneration",
    views={"DeepseekVL": ("padded",), "Janus": ("padded",)},
)
class DeepseekVLAdapter(ModelAdapter):
    """For DeepseekVLForConditionalGeneration, DeepseekVLHybridForConditionalGeneration and
    JanusForConditionalGeneration.

    Attention is that of the low-resolution tower, which has one patch per visual token. When a Janus draws
    (`generation_mode="image"`), its prompt is text, and nothing is pruned.
    """

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_model", None)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        pixels, patch = arguments[modality.pixels], self.vision_tower.config.patch_size
        return [Layout.raster((1, pixels.shape[-2] // patch, pixels.shape[-1] // patch))] * len(pixels)
