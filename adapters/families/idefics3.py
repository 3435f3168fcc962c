"""Idefics3, SmolVLM and Granite Docling: tiles with text between them, whose visual tokens each combine a square of
patches (pixel shuffle). In Idefics2, an image of any size is resampled to the same number of visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Set
from math import isqrt
from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn

from tokenprune.adapters.base import Inputs, ModelAdapter
from tokenprune.adapters.generic import DeepStack
from tokenprune.adapters.layouts.tiles import run_starts, starts_after_overviews, token_ids
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers.resampler import shares_of_tiles, with_reads
from tokenprune.adapters.towers.tower import QueryKey
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.errors import PruningError
from tokenprune.tokens.attention import split_heads
from tokenprune.tokens.layout import Layout


class Idefics(Inputs):
    """What all of them share."""

    @property
    def language_model(self) -> nn.Module:
        return self.core.text_model

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_model", None)

    def encoded(self, modality: Modality, kwargs: Mapping[str, Any]) -> Any:
        """Raises PruningError for a call that brings the features of its images instead of the encoder's output."""
        features = kwargs.get("image_hidden_states")  # what it was called up to 5.1x
        if features is not None or isinstance(kwargs.get("mm_encoder_outputs"), Tensor):
            raise PruningError(
                "bare features say nothing about their tiles, so their visual tokens cannot be pruned. Pass "
                "pixel_values instead."
            )
        return super().encoded(modality, kwargs)


@register_adapter("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")
class Idefics3Adapter(Idefics, ModelAdapter):
    """For Idefics3ForConditionalGeneration and SmolVLMForConditionalGeneration.

    The model does not know which tiles belong to one image; the headers that the processor writes before them tell.
    Each frame of a video is an image.
    """

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        return starts_after_overviews(token_ids(kwargs), visual)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        # Tiles that only fill up a row are not encoded, so the encoded ones are counted.
        n_tiles, n_patches, _ = output.last_hidden_state.shape
        side = isqrt(n_patches)
        return [Layout.squares(side, side, self.config.scale_factor)] * n_tiles


@register_adapter("GraniteDoclingForConditionalGeneration")
class GraniteDoclingAdapter(DeepStack, Idefics3Adapter):
    """For GraniteDoclingForConditionalGeneration.

    The model does not know which tiles belong to one image. The processor writes each tile's place in the image as a
    token before it, and every image begins like the first one of its row.
    """

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        starts, header = run_starts(visual), token_ids(kwargs).roll(1, 1)
        first = header.gather(1, starts.int().argmax(1, keepdim=True))
        return starts & (header == first)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_tiles, n_patches, _ = output.last_hidden_state.shape
        n_tokens = sum(len(row) for row in output.pooler_output) // n_tiles  # more of them on the fine route
        side = isqrt(n_patches)
        return [Layout.squares(side, side, side // isqrt(n_tokens))] * n_tiles


@register_adapter("Idefics2ForConditionalGeneration")
class Idefics2Adapter(Idefics, KnownTowerAdapter):
    """For Idefics2ForConditionalGeneration.

    A visual token is a query that has read all patches, so it has no place on a grid. A map over patches becomes one
    over visual tokens by what the last layer of the resampler reads. Each crop of an image is an image.
    """

    @property
    def resampler(self) -> Any:
        return self.core.connector

    @property
    def offers(self) -> Set[str]:
        return super().offers - {"grid"}

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
