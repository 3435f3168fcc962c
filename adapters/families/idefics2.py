"""Idefics2: an image of any size is resampled to the same number of visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from torch import nn

from tokenprune.adapters.families.idefics3 import refuse_bare_features
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers.resampler import shares_of_tiles, with_reads
from tokenprune.adapters.towers.tower import QueryKey
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.tokens.attention import split_heads
from tokenprune.tokens.layout import Layout


@register_adapter("Idefics2ForConditionalGeneration")
class Idefics2Adapter(KnownTowerAdapter):
    """For Idefics2ForConditionalGeneration.

    A visual token is a query that has read all patches, so it has no place on a grid. A map over patches becomes one
    over visual tokens by what the last layer of the resampler reads. Each crop of an image is an image.
    """

    @property
    def language_model(self) -> nn.Module:
        return self.core.text_model

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_model", None)

    @property
    def resampler(self) -> Any:
        return self.core.connector

    @property
    def offers(self) -> Set[str]:
        return super().offers - {"grid"}

    def encoded(self, modality: Modality, kwargs: Mapping[str, Any]) -> Any:
        refuse_bare_features(kwargs)
        return super().encoded(modality, kwargs)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_tokens = self.config.perceiver_config.resampler_n_latents  # the output joins the images of a row
        return [Layout.raster((1, 1, n_tokens))] * len(output.last_hidden_state)

    def capture_points(self, layer: int | None) -> list[CapturePoints]:
        (point,) = super().capture_points(layer)
        return [with_reads(point, self.resampler.perceiver_resampler.layers[-1].self_attn)]

    def tile_heads(self, call: Mapping[str, Any]) -> QueryKey:
        queries, keys, real = super().tile_heads(call)
        config, n_patches = self.config.perceiver_config, keys[0].shape[1]
        reading = split_heads(call["reading"], config.resampler_n_heads)
        read = split_heads(call["read"][:, :n_patches], config.num_key_value_heads)  # the queries' own follow
        scale = config.resampler_head_dim**-0.5
        return queries, keys, real, shares_of_tiles(reading, read, scale, real)
