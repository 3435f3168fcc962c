"""LLaVA-NeXT-Video: images as in LLaVA-NeXT; the frames of a video are pooled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from tokenprune.adapters.families.llava_next import LlavaNextAdapter
from tokenprune.adapters.layouts.frames import frames_layout, video_pixels
from tokenprune.adapters.registry import register_adapter
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("LlavaNextVideoForConditionalGeneration")
class LlavaNextVideoAdapter(LlavaNextAdapter):
    """For LlavaNextVideoForConditionalGeneration with a CLIP, SigLIP or DINOv2 tower."""

    takes_video = True

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        if modality.name == "image":
            return super().layouts(modality, arguments, output)
        n_videos, n_frames = video_pixels(modality, arguments).shape[:2]
        stride = self.config.spatial_pool_stride
        pooled = partial(pool, mode=self.config.spatial_pool_mode, stride=stride, side=self.side)
        return [frames_layout(n_frames, self.side // stride, self.side // stride, pooled)] * n_videos


def pool(values: Float[Tensor, "frames patches"], mode: str, stride: int, side: int) -> Float[Tensor, " visual"]:
    """Pool maps over patches as features are pooled; where a convolution mixes channels, average over its squares."""
    squares = rearrange(values, "frame (row column) -> frame row column", row=side)
    return (max_pool2d if mode == "max" else avg_pool2d)(squares, stride).flatten()
