"""Cosmos 3 Edge: images and videos of any size, whose patches are merged after a tower like SigLIP 2's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.qwen import assembled, by_frame, layouts
from tokenprune.adapters.towers.tower import QueryKey, encoder_layers, projected_points
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Cosmos3EdgeForConditionalGeneration")
class Cosmos3EdgeAdapter(KnownTowerAdapter):
    """For Cosmos3EdgeForConditionalGeneration. The patches of a visual token are adjacent, as in Qwen-VL."""

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "visual", None)

    def describe_tower(self) -> Tower:
        return TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        return layouts(modality, arguments, self.vision_tower.config.spatial_merge_size)

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        config = self.vision_tower.config
        pattern, side = "patch (y x channel) -> patch channel y x", config.patch_size
        patches = rearrange(arguments["pixel_values"], pattern, y=side, x=side)
        return assembled(patches, arguments["grid_thw"], config.spatial_merge_size)


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Queries and keys of every frame, from the projections of the patches of all images in one row."""
    grids, merge = call["tower"]["grid_thw"], config.spatial_merge_size
    split = (
        rearrange(call[part], "patch (head width) -> patch head width", head=config.num_attention_heads)
        for part in ("queries", "keys")
    )
    return tuple(by_frame(states, grids, merge) for states in split)


TOWER = Tower(encoder_layers, projected_points, n_prefix=0, heads=heads)
