"""ERNIE 4.5 VL: images and videos of any size; pairs of frames are merged after the vision tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.families.qwen_vl import Qwen2VLAdapter
from tokenprune.adapters.layouts.frames import frame_pairs
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.qwen import QWEN2_TOWER, assembled
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Ernie4_5_VLMoeForConditionalGeneration")
class Ernie4_5VLAdapter(Qwen2VLAdapter):
    """For Ernie4_5_VLMoeForConditionalGeneration, whose experts depend on a token's modality."""

    sequence_arguments = ("moe_mm_token_type_ids",)

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_tower", None)

    def describe_tower(self) -> Tower:
        return replace(QWEN2_TOWER, row=None)  # after the tower, two frames are merged into each visual token

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        merge = self.vision_tower.config.spatial_merge_size
        grids = arguments[f"{modality.name}_grid_thw"].tolist()
        return [frame_pairs(n_frames, Layout.squares(height, width, merge)) for n_frames, height, width in grids]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        config = self.vision_tower.config
        patch = config.patch_size
        patches = arguments["hidden_states"].reshape(-1, config.in_channels, patch, patch)
        return assembled(patches, arguments["grid_thw"], config.spatial_merge_size)
