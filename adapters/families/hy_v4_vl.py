"""HY-V4-VL: images and videos of any size, in which every row ends with a newline token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.layouts.newlines import rows_with_newlines
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.siglip_packed import HUNYUAN_TOWER, packed_pixels
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("HYV4VLForConditionalGeneration")
class HYV4VLAdapter(KnownTowerAdapter):
    """For HYV4VLForConditionalGeneration. Newline tokens are visual tokens too; frames of a video are tiles."""

    def describe_tower(self) -> Tower:
        return replace(HUNYUAN_TOWER, scale=_scale)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        merge = self.vision_tower.config.spatial_merge_size
        grids = arguments[f"{modality.name}_grid_thw"].tolist()
        return [rows_with_newlines(Layout.squares(rows, columns, merge), n_frames) for n_frames, rows, columns in grids]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        return packed_pixels(arguments, self.vision_tower.config)


def _scale(tower: Any) -> float:
    return tower.layers[0].self_attn.scaling
