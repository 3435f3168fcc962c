"""Aria: an image is resampled to a number of visual tokens that depends on its size."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from torch.nn.functional import linear

from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers.resampler import shares_of_tiles, with_reads
from tokenprune.adapters.towers.tower import QueryKey, scale_of_width
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.tokens.attention import split_heads
from tokenprune.tokens.layout import Layout


@register_adapter("AriaForConditionalGeneration")
class AriaAdapter(KnownTowerAdapter):
    """For AriaForConditionalGeneration.

    A visual token is a query that has read all patches, so it has no place on a grid. Maps over patches become maps
    over visual tokens by what the projector attends to. Each crop of an image is an image.
    """

    @property
    def resampler(self) -> Any:
        return self.core.multi_modal_projector

    @property
    def offers(self) -> Set[str]:
        return super().offers - {"grid"}

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_images, n_tokens, _ = output.pooler_output.shape
        return [Layout.raster((1, 1, n_tokens))] * n_images

    def consumed_layer(self, n_layers: int) -> int:
        """The layer that makes the state that is read; state 0 is the embedding."""
        state = self.config.vision_feature_layer
        return state - 1 if state >= 0 else n_layers + state

    def capture_points(self, layer: int | None) -> list[CapturePoints]:
        (point,) = super().capture_points(layer)
        return [with_reads(point, self.resampler.cross_attn)]

    def tile_heads(self, call: Mapping[str, Any]) -> QueryKey:
        queries, keys, real = super().tile_heads(call)
        attention = self.resampler.cross_attn.multihead_attn  # projects them once more
        weights, biases = attention.in_proj_weight.detach().chunk(3), attention.in_proj_bias.detach().chunk(3)
        parts = zip((call["reading"], call["read"]), weights, biases, strict=False)
        reading, read = (split_heads(linear(*part), attention.num_heads) for part in parts)
        scale = scale_of_width(self.vision_tower)
        return queries, keys, real, shares_of_tiles(reading, read, scale, real)
