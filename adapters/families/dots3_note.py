"""dots3-note: images and videos as in Qwen-VL, from a tower that norms its queries and keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import ToweredAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.qwen import assembled, layout, separate_heads
from tokenprune.adapters.towers.tower import CLIP_COLORS
from tokenprune.tokens.encoded import CapturePoints, Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Dots3NoteForConditionalGeneration")
class Dots3NoteAdapter(ToweredAdapter):
    """For Dots3NoteForConditionalGeneration. Audio stays."""

    def describe_tower(self) -> Tower:
        return TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        merge = self.vision_tower.config.spatial_merge_size
        grids = arguments[f"{modality.name}_grid_thw"].tolist()
        return [layout(n_frames, height, width, merge) for n_frames, height, width in grids]

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        config = self.vision_tower.config
        patches = arguments["pixel_values"].reshape(-1, config.num_channels, config.patch_size, config.patch_size)
        return assembled(patches, arguments["grid_thw"], config.spatial_merge_size)


def _points(block: Any) -> CapturePoints:
    return CapturePoints(block.attn, {"queries": block.attn.q_norm, "keys": block.attn.k_norm})


TOWER = Tower(
    lambda tower: tower.blocks,
    _points,
    n_prefix=0,
    heads=separate_heads,
    scale=lambda tower: tower.blocks[0].attn.scaling,
    normalisation=CLIP_COLORS,
)
