"""LLaVA-OneVision: tiles as in LLaVA-NeXT, resized if there are many; one tile each for several images; videos."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.families.llava_next import LlavaNextAdapter
from tokenprune.adapters.layouts.frames import frames_layout, video_pixels
from tokenprune.adapters.layouts.newlines import ended_by_newline
from tokenprune.adapters.registry import register_adapter
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("LlavaOnevisionForConditionalGeneration")
class LlavaOnevisionAdapter(LlavaNextAdapter):
    """For LlavaOnevisionForConditionalGeneration with a SigLIP, CLIP or DINOv2 tower."""

    takes_video = True
    tokenwise = "LlavaOnevisionMultiModalProjector"

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        if modality.name == "video":
            n_videos, n_frames = video_pixels(modality, arguments).shape[:2]
            side = (self.side + 1) // 2
            pooled = partial(pool, core=type(self.core), config=self.config)
            return [ended_by_newline(frames_layout(n_frames, side, side, pooled))] * n_videos
        sizes, per_row = arguments["image_sizes"], arguments.get("batch_num_images")
        alone = [True] * len(sizes) if per_row is None else [int(n) == 1 for n in per_row for _ in range(n)]
        ratio = arguments.get("vision_aspect_ratio") or self.config.vision_aspect_ratio
        return [
            self.anyres(size, vision_aspect_ratio=ratio)
            if tiled
            else ended_by_newline(frames_layout(1, self.side, self.side))
            for size, tiled in zip(sizes, alone, strict=True)
        ]


def pool(values: Float[Tensor, "frames patches"], core: Any, config: Any) -> Float[Tensor, " visual"]:
    """Pool maps over patches with the base model's class, as features of one channel; it reads only the config."""
    return core.apply_pooling(SimpleNamespace(config=config), values[..., None]).flatten()
