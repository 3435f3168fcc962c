"""LFM3-VL: images and videos of any size, from a tower in which convolutions and attention alternate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import GlobalLayersMixin, KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.qwen import frame_pixels, layouts, rotated_frames
from tokenprune.adapters.towers.tower import QueryKey, norms
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Lfm3VlForConditionalGeneration")
class Lfm3VlAdapter(GlobalLayersMixin, KnownTowerAdapter):
    """For Lfm3VlForConditionalGeneration. The patches of a visual token are adjacent, as in Qwen-VL."""

    local_layer_reason = "has a convolution in place of attention"

    def describe_tower(self) -> Tower:
        return TOWER

    @property
    def global_layers(self) -> Sequence[int]:
        kinds = self.vision_tower.config.layer_types
        return [number for number, kind in enumerate(kinds) if kind != "conv"]

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        return layouts(modality, arguments, self.vision_tower.spatial_merge_size)

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        return frame_pixels(arguments, self.vision_tower.config, "pixel_values")


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Rotated queries and keys of every frame; several heads share keys."""
    keys = call["keys"].repeat_interleave(config.num_attention_heads // config.num_key_value_heads, 1)
    return rotated_frames(call["queries"], keys, call, config.spatial_merge_size)


def _points(layer: Any) -> CapturePoints:
    return norms(layer.self_attn)


TOWER = Tower(attrgetter("layers"), _points, n_prefix=0, heads=heads)
