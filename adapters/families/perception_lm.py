"""PerceptionLM: images as an overview and tiles, and videos as frames, each pooled to a square of visual tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import isqrt
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from tokenprune.adapters.layouts.frames import video_layout
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.timm import WRAPPER, timm_tower
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("PerceptionLMForConditionalGeneration")
class PerceptionLMAdapter(KnownTowerAdapter):
    """For PerceptionLMForConditionalGeneration, which encodes videos as images, with the same function. All images of a
    call have equally many tiles, and all videos equally many frames."""

    def describe_tower(self) -> Tower:
        wrapped = self.vision_tower.config.model_type == WRAPPER
        return timm_tower(self.vision_tower) if wrapped else super().describe_tower()

    @property
    def modalities(self) -> tuple[Modality, ...]:
        function = "get_image_features"
        image = Modality("image", function, "pixel_values", self.config.image_token_id)
        return image, Modality("video", function, "pixel_values_videos", self.config.video_token_id)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_images, n_tiles = arguments["pixel_values"].shape[:2]
        side = isqrt(output.pooler_output.shape[1])
        tile = Layout(((1, side, side),), to_tokens=partial(pooled, side=side))
        if modality.name == "video":
            return [video_layout([tile] * n_tiles)] * n_images
        return [Layout.concat([tile] * n_tiles) if n_tiles > 1 else tile] * n_images


def pooled(values: Float[Tensor, "one patches"], side: int) -> Float[Tensor, " visual"]:
    """Average the patches of each of side x side visual tokens."""
    return adaptive_avg_pool2d(values.unflatten(1, (isqrt(values.shape[1]), -1)), side).flatten()
