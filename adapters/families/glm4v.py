"""GLM-4.1V, 4.5V and 4.6V, GLM-OCR and GLM-5-Next: images and videos of any size, with the same placeholder token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from tokenprune.adapters.families.qwen_vl import Qwen2VLAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.qwen import NORMED_TOWER
from tokenprune.encoded import Modality


@register_adapter(
    "Glm4vForConditionalGeneration",
    "Glm46VForConditionalGeneration",
    "Glm4vMoeForConditionalGeneration",
    prompt_style="glm-v",
)
class Glm4vAdapter(Qwen2VLAdapter):
    """For Glm4v-, Glm46V- and Glm4vMoeForConditionalGeneration.

    The processor writes every frame of a video like an image, and the model takes images or videos, not both in one
    call.
    """

    frames_as_images = True

    @property
    def modalities(self) -> tuple[Modality, ...]:
        image, video = super().modalities
        return image, replace(video, token_id=image.token_id)


@register_adapter("GlmOcrForConditionalGeneration")
class GlmOcrAdapter(Glm4vAdapter):
    """For GlmOcrForConditionalGeneration, whose vision tower norms its queries and keys."""

    def describe_tower(self) -> Tower:
        return NORMED_TOWER


@register_adapter("Glm5NextForConditionalGeneration")
class Glm5NextAdapter(GlmOcrAdapter):
    """For Glm5NextForConditionalGeneration, without position IDs in its language model. Images and videos may come in
    one call: the placeholders between a video's markers are its own."""

    def visual_mask(self, modality: Modality, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch length"] | None:
        mask = super().visual_mask(modality, kwargs)
        if mask is None:
            return None
        begun, ended = (
            self.columns_of(token_id, kwargs).cumsum(1)
            for token_id in (self.config.video_start_token_id, self.config.video_end_token_id)
        )
        in_video = begun > ended
        return mask & (in_video if modality.name == "video" else ~in_video)
