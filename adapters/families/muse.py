"""Muse Glimmer and Muse Spark: images and videos of any size; most layers of the tower attend within windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.adapters.layouts.windows import window_order
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import GlobalLayersMixin, KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.attention import apply_rotary
from tokenprune.adapters.towers.qwen import assembled, by_frame, layouts
from tokenprune.adapters.towers.tower import QueryKey, projections
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.tokens.layout import Layout


@register_adapter("MuseGlimmerForConditionalGeneration", "MuseSparkForConditionalGeneration")
class MuseAdapter(GlobalLayersMixin, KnownTowerAdapter):
    """For MuseGlimmer- and MuseSparkForConditionalGeneration. Patches come in raster order, and are merged after the
    tower's last layer."""

    def describe_tower(self) -> Tower:
        return TOWER

    @property
    def global_layers(self) -> Sequence[int]:
        kinds = self.vision_tower.config.layer_types
        return [number for number, kind in enumerate(kinds) if kind == "full_attention"]

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        return layouts(modality, arguments, self.vision_tower.config.merge_size)

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        return image_pixels(arguments["pixel_values"], arguments["grid_thw"], self.vision_tower.config)


def image_pixels(
    patches: Float[Tensor, "patches values"], grids: Int[Tensor, "images 3"], config: Any
) -> list[Float[Tensor, "channels height width"]]:
    """Assemble every frame from its patches; each covers several frames, which are averaged."""
    pattern, side = "patch (time channel y x) -> patch channel y x", config.patch_size
    means = reduce(patches, pattern, "mean", time=config.patch_temporal, y=side, x=side)
    return assembled(means, grids, 1)


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Rotated queries and keys of every frame. The layers have the patches window by window, of `pos_emb_height` x
    `pos_emb_height` patches each."""
    grids = call["tower"]["grid_thw"]
    raster = window_order(grids, 1, config.pos_emb_height).argsort()
    cos, sin = (angles[raster] for angles in call["attention"]["position_embeddings"])

    def of_frames(states: Float[Tensor, "patches heads_width"]) -> list[Tensor]:
        split = rearrange(states[raster], "patch (head width) -> patch head width", width=cos.shape[-1])
        return by_frame(apply_rotary(split, cos, sin), grids, 1)

    return of_frames(call["queries"]), of_frames(call["keys"])


def _points(layer: Any) -> CapturePoints:
    return projections(layer.attn)


TOWER = Tower(attrgetter("layers"), _points, n_prefix=0, heads=heads)
