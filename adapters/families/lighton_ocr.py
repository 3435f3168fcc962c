"""LightOn OCR: Mistral 3's tower and visual tokens on another language model."""

from __future__ import annotations

from typing import Any

from tokenprune.adapters.families.mistral3 import Mistral3Adapter
from tokenprune.adapters.registry import register_adapter


@register_adapter("LightOnOcrForConditionalGeneration")
class LightOnOcrAdapter(Mistral3Adapter):
    """For LightOnOcrForConditionalGeneration, whose processor writes no markers between the rows of visual tokens."""

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_encoder", None)

    @property
    def feature_layers(self) -> int:
        return -1
