"""Families whose image is one square of patches: LLaVA 1.0 and 1.5, VipLLaVA, Video-LLaVA, DeepSeek-VL and Janus, and
others with their prompts."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import VideoLlavaForConditionalGeneration, VipLlavaForConditionalGeneration

from .base import BREAK, END, IMAGE, PATCH, PIXELS_OR_EMBEDS, RECENT, START, VIDEO, Family, ImageInputs, Size
from .common import CommonFamily

SIDE = 24  # pixels; 6 x 6 visual tokens per image
#: The towers of the stored LLaVAs. "internvl" has sizes that are lists.
TOWERS = ["clip", "siglip", "dinov2", "internvl"]
FINE = 32  # side in pixels of an image for the high-resolution tower
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
    sizes = ((SIDE, SIDE),)

    def block(self, size: Size) -> list[int]:
        return [IMAGE] * (size[0] // PATCH * (size[1] // PATCH))

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(1, 3, *size, generator=generator)}


class VipLlava(Llava):
    """The projector gets several layers of the tower at once."""

    def config(self) -> Any:
        config = super().config()
        setattr(config, VIP_LAYERS, [-2, -3, 1])
        return config


class VideoLlava(Llava):
    """Two towers. Frames of a video keep their CLS tokens, and a video has no structure beyond its frames."""

    sizes = ((16, 16),)  # 4 x 4 visual tokens
    video_sizes = ((2, 16, 16),)

    def block(self, size: Size) -> list[int]:
        return [VIDEO] * (size[0] * 17) if len(size) == 3 else super().block(size)

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        if len(size) == 3:
            return frames_of(size, generator)
        return {VIDEO_LLAVA_PIXELS: torch.randn(1, 3, *size, generator=generator)}


def frames_of(size: Size, generator: torch.Generator) -> ImageInputs:
    """Return a video of (frames, height, width)."""
    frames, height, width = size
    return {"pixel_values_videos": torch.randn(1, frames, 3, height, width, generator=generator)}


class DeepseekVL(CommonFamily, Llava):
    pass


class DeepseekVLHybrid(DeepseekVL):
    """A second tower for high resolution."""

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        fine = torch.randn(1, 3, FINE, FINE, generator=generator)
        return {**super().image_inputs(size, generator), "high_res_pixel_values": fine}


class Janus(DeepseekVL):
    """Every image has a marker before and after it."""

    def block(self, size: Size) -> list[int]:
        return [START, *super().block(size), END]


def drawn(model: Any, ids: Tensor) -> Tensor:
    """Return the codes of an image that a Janus generates for a text prompt."""
    model.generation_config.generation_kwargs = {"boi_token_id": START}
    return model.generate(ids, attention_mask=torch.ones_like(ids), generation_mode="image", do_sample=False)


class GotOcr2(CommonFamily, Llava):
    """A tower with windows and relative positions, and convolutions that merge 4 x 4 patches into one visual token.
    Each crop of an image counts as an image."""

    eager_tower = True
    sizes = ((64, 64),)

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * (size[0] // PATCH // 4) ** 2, END]


class Aria(CommonFamily, Llava):
    """Images of two sizes are resampled to a fixed number of tokens."""

    def block(self, size: Size) -> list[int]:
        return [IMAGE] * 12

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        mask = torch.ones(1, *size).long()
        mask[:, :, 16:] = 0  # the processor pads images that are not square
        return {**super().image_inputs(size, generator), "pixel_mask": mask}


class FastVlm(CommonFamily, Llava):
    """A convolutional tower. The published one needs timm; a ResNet has the same interface."""

    eager_tower = True
    sizes = ((64, 64),)

    def config(self) -> Any:
        config = super().config()
        config.vision_config.hidden_size = 16
        return config

    def block(self, size: Size) -> list[int]:
        return [IMAGE] * (size[0] // 8 * (size[1] // 8))


class PerceptionLM(CommonFamily, Llava):
    """Images consist of an overview and tiles, videos of frames, each pooled to a quarter. All images of a batch have
    the same number of tiles, and all videos the same number of frames. The published tower needs timm; CLIP's has the
    same interface."""

    sizes = ((24, 48),)
    video_sizes = ((3, 24, 24),)
    side, n_visual = 24, 27

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        if not RECENT:
            self.cannot["embedded"] = PIXELS_OR_EMBEDS

    def config(self) -> Any:
        config = super().config()
        config.vision_config.model_args = {"embed_dim": 32}
        return config

    def block(self, size: Size) -> list[int]:
        return [VIDEO if len(size) == 3 else IMAGE] * self.n_visual

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        name = "pixel_values_videos" if len(size) == 3 else "pixel_values"
        return {name: torch.randn(1, 3, 3, self.side, self.side, generator=generator)}


class Fuyu(CommonFamily, Llava):
    """No tower: each patch is a row of pixels and a visual token. The patches of all images are concatenated."""

    sizes = ((12, 16), (20, 8), (16, 16))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # transformers repeats the prompt, but not the patches.
        self.cannot["sampled"] = self.cannot["beams"] = (ValueError, "features and image tokens do not match")

    def block(self, size: Size) -> list[int]:
        return [*([IMAGE] * (size[1] // 4) + [BREAK]) * (size[0] // 4), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(size[0] * size[1] // 16, 48, generator=generator)}
