"""HunyuanOCR: images of any size, with newline tokens among their visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.layouts.newlines import rows_with_delimiters
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.siglip_packed import HUNYUAN_TOWER, packed_pixels
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("HunYuanVLForConditionalGeneration")
class HunyuanVLAdapter(ModelAdapter):
    """For HunYuanVLForConditionalGeneration. An image has a token before it, one after each row and one at its end.

    Position IDs have a component for the number of the image, which transformers counts across the rows of a batch.
    """

    def describe_tower(self) -> Tower:
        return HUNYUAN_TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        merge = self.vision_tower.config.spatial_merge_size
        grids = arguments["image_grid_thw"].tolist()
        return [rows_with_delimiters(Layout.squares(height, width, merge)) for _, height, width in grids]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        return packed_pixels(arguments, self.vision_tower.config)
