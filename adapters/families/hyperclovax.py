"""HyperCLOVA X: Qwen2.5-VL's vision tower in front of another language model."""

from __future__ import annotations

from typing import Any

from tokenprune.adapters.families.qwen_vl import Qwen2_5_VLAdapter
from tokenprune.adapters.registry import register_adapter


@register_adapter("HyperCLOVAXVisionV2ForConditionalGeneration")
class HyperClovaXAdapter(Qwen2_5_VLAdapter):
    """For HyperCLOVAXVisionV2ForConditionalGeneration. Position IDs count tokens."""

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_model", None)
