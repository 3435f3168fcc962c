"""PaddleOCR-VL: images of any size, whose patches are merged after the vision tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.families.qwen_vl import Qwen2VLAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.siglip_packed import PADDLE_TOWER, packed_pixels


@register_adapter("PaddleOCRVLForConditionalGeneration")
class PaddleOCRVLAdapter(Qwen2VLAdapter):
    """For PaddleOCRVLForConditionalGeneration, which takes no videos."""

    takes_video = False
    folded = False

    def describe_tower(self) -> Tower:
        return PADDLE_TOWER

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        return packed_pixels(arguments, self.vision_tower.config)
