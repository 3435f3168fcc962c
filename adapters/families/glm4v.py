"""GLM-4.1V, GLM-4.5V, GLM-4.6V and GLM-OCR: images and videos of any size, all with one placeholder token."""

from __future__ import annotations

from dataclasses import replace

from tokenprune.adapters.families.qwen_vl import Qwen2VLAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.qwen import NORMED_TOWER
from tokenprune.tokens.encoded import Modality


@register_adapter("Glm4vForConditionalGeneration", "Glm46VForConditionalGeneration", "Glm4vMoeForConditionalGeneration")
class Glm4vAdapter(Qwen2VLAdapter):
    """For Glm4v-, Glm46V- and Glm4vMoeForConditionalGeneration.

    The processor writes every frame of a video as it writes an image, and the model takes images or videos, not both
    in one call.
    """

    @property
    def modalities(self) -> tuple[Modality, ...]:
        image, video = super().modalities
        return image, replace(video, token_id=image.token_id)


@register_adapter("GlmOcrForConditionalGeneration")
class GlmOcrAdapter(Glm4vAdapter):
    """For GlmOcrForConditionalGeneration, whose vision tower norms its queries and keys."""

    def describe_tower(self) -> Tower:
        return NORMED_TOWER
