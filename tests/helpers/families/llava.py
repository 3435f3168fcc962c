"""LLaVA 1.0 and 1.5, VipLLaVA and Video-LLaVA: one image is one square of patches."""

from functools import partial
from inspect import signature
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from .base import IMAGE, PATCH, VIDEO, Family, ImageInputs, Size, decoder, tower

SIDE = 24  # pixels; 6 x 6 visual tokens per image
TOWERS: dict[str, Any] = {
    "clip": CLIPVisionConfig,
    "siglip": SiglipVisionConfig,
    "dinov2": Dinov2Config,
    "internvl": InternVLVisionConfig,  # sizes are lists
}
#: A different language model under each tower, for variety at no cost.
BACKBONES: dict[str, Any] = {
    "clip": LlamaConfig,
    "siglip": Qwen2Config,
    "dinov2": partial(MistralConfig, sliding_window=None),
    "internvl": LlamaConfig,
}
#: Names that changed in transformers 5.2x.
VIDEO_LLAVA_PIXELS = (
    "pixel_values"
    if "pixel_values" in signature(VideoLlavaForConditionalGeneration.forward).parameters
    else "pixel_values_images"
)
VIP_LAYERS = (
    "vision_feature_layer"
    if "vision_feature_layer" in signature(VipLlavaForConditionalGeneration.forward).parameters
    else "vision_feature_layers"
)


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

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(1, 3, *size, generator=generator)}


class VipLlava(Llava):
    """The projector gets several layers of the tower at once."""

    class_name = "VipLlavaForConditionalGeneration"

    def config(self) -> Any:
        layers: Any = {VIP_LAYERS: [-2, -3, 1]}
        return VipLlavaConfig(
            vision_config=CLIPVisionConfig(**tower(SIDE)),
            text_config=LlamaConfig(**decoder()),
            image_token_index=IMAGE,
            **layers,
        )


class VideoLlava(Llava):
    """Two towers. Frames of a video keep their CLS tokens, and a video has no structure beyond its frames."""

    class_name = "VideoLlavaForConditionalGeneration"
    sizes = ((16, 16),)  # 4 x 4 visual tokens
    video_sizes = ((2, 16, 16),)

    def config(self) -> Any:
        return VideoLlavaConfig(
            vision_config=CLIPVisionConfig(**tower(16)),
            text_config=LlamaConfig(**decoder()),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
        )

    def block(self, size: Size) -> list[int]:
        return [VIDEO] * (size[0] * 17) if len(size) == 3 else super().block(size)

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        if len(size) == 3:
            frames, height, width = size
            return {"pixel_values_videos": torch.randn(1, frames, 3, height, width, generator=generator)}
        return {VIDEO_LLAVA_PIXELS: torch.randn(1, 3, *size, generator=generator)}
