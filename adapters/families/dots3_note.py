"""dots3-note: images and videos as in Qwen-VL, from a tower that normalises its queries and keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.qwen import NORMED_TOWER, assembled, layouts
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Dots3NoteForConditionalGeneration")
class Dots3NoteAdapter(KnownTowerAdapter):
    """For Dots3NoteForConditionalGeneration. Audio is untouched."""

    def describe_tower(self) -> Tower:
        return replace(NORMED_TOWER, row=None)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        return layouts(modality, arguments, self.vision_tower.config.spatial_merge_size)

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        config = self.vision_tower.config
        patches = arguments["pixel_values"].reshape(-1, config.num_channels, config.patch_size, config.patch_size)
        return assembled(patches, arguments["grid_thw"], config.spatial_merge_size)
