"""Video-LLaVA: one tower for images and one for videos, whose frames keep their CLS tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.adapters.families.llava import LlavaAdapter
from tokenprune.adapters.layouts.frames import video_pixels
from tokenprune.adapters.registry import register_adapter
from tokenprune.encoded import Modality
from tokenprune.errors import UnsupportedError
from tokenprune.tokens.layout import Layout


@register_adapter("VideoLlavaForConditionalGeneration", processor="VideoLlavaProcessor", resizable=True)
class VideoLlavaAdapter(LlavaAdapter):
    """For VideoLlavaForConditionalGeneration with CLIP or DINOv2. One config describes both towers."""

    takes_video = True

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "image_tower", None)

    @property
    def vision_towers(self) -> tuple[Any, ...]:
        return (self.core.image_tower, self.core.video_tower)

    def check_patches(self) -> None:
        super().check_patches()
        if not self.tower.n_prefix:
            raise UnsupportedError(
                f"a {type(self.model).__name__} with a {self.vision_tower.config.model_type} tower, which has no CLS "
                f"token, is not supported. Load a model with a CLIP tower."
            )

    def visual_mask(self, modality: Modality, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch length"] | None:
        return super().visual_mask(modality, with_current_name(kwargs))

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        if modality.name == "image":
            return super().layouts(modality, with_current_name(arguments), output)
        pixels, patch = video_pixels(modality, arguments), self.vision_tower.config.patch_size
        n_videos, n_frames = pixels.shape[:2]
        frame = ((1, 1, 1), (1, pixels.shape[-2] // patch, pixels.shape[-1] // patch))
        n_tokens = 1 + frame[1][1] * frame[1][2]
        tiles = torch.arange(n_frames).repeat_interleave(n_tokens)
        is_cls = torch.arange(len(tiles)) % n_tokens == 0
        video = Layout(
            frame * n_frames,
            n_frames,
            to_tokens_with_cls,
            tiles if n_frames > 1 else None,
            frame=tiles.masked_fill(is_cls, -1),
        )
        return [video] * n_videos


def with_current_name(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments with images under their name from 5.2x on. The processor still uses the old one, and the
    model takes both."""
    before = arguments.get("pixel_values_images")
    return arguments if before is None else {**arguments, "pixel_values": before}


def to_tokens_with_cls(values: Float[Tensor, "frames patches"]) -> Float[Tensor, " visual"]:
    """A map with a CLS token at the start of every frame: it stands for the frame, so it gets its highest value."""
    return torch.cat([values.amax(1, keepdim=True), values], 1).flatten()
