"""LLaVA 1.0 and 1.5: one picture is one square of patches."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    LlavaConfig,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from .base import IMAGE, PATCH, Family, Picture, Size, decoder, tower

SIDE = 24  # pixels; 6 x 6 visual tokens a picture
TOWERS: dict[str, Any] = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig, "dinov2": Dinov2Config}
#: A different language model under each tower, for variety at no cost.
BACKBONES: dict[str, Any] = {
    "clip": LlamaConfig,
    "siglip": Qwen2Config,
    "dinov2": partial(MistralConfig, sliding_window=None),
}


class Llava(Family):
    class_name = "LlavaForConditionalGeneration"
    sizes = ((SIDE, SIDE),)

    def __init__(self, name: str, kind: str = "clip", **settings: Any) -> None:
        super().__init__(name)
        self.kind, self.settings = kind, settings

    def config(self) -> Any:
        return LlavaConfig(
            vision_config=TOWERS[self.kind](**tower(SIDE)),
            text_config=BACKBONES[self.kind](**decoder()),
            image_token_index=IMAGE,
            vision_feature_select_strategy="full" if self.kind == "siglip" else "default",
            **self.settings,
        )

    def block(self, size: Size) -> list[int]:
        return [IMAGE] * (size[0] // PATCH * (size[1] // PATCH))

    def picture(self, size: Size, generator: torch.Generator) -> Picture:
        return {"pixel_values": torch.randn(1, 3, *size, generator=generator)}
