"""Idefics3 and SmolVLM: tiles with text between them, whose visual tokens each combine a square of patches (pixel
shuffle)."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.layouts.tiles import starts_after_overviews, token_ids
from tokenprune.adapters.registry import register_adapter
from tokenprune.encoded import Modality
from tokenprune.errors import PruningError
from tokenprune.tokens.layout import Layout


@register_adapter("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")
class Idefics3Adapter(ModelAdapter):
    """For Idefics3ForConditionalGeneration and SmolVLMForConditionalGeneration.

    The model does not know which tiles belong to one image; the headers that the processor writes before them tell.
    Each frame of a video is an image.
    """

    @property
    def language_model(self) -> nn.Module:
        return self.core.text_model

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_model", None)

    def encoded(self, modality: Modality, kwargs: Mapping[str, Any]) -> Any:
        refuse_bare_features(kwargs)
        return super().encoded(modality, kwargs)

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        return starts_after_overviews(token_ids(kwargs), visual)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        # Tiles that only fill up a row are not encoded, so the encoded ones are counted.
        n_tiles, n_patches, _ = output.last_hidden_state.shape
        side = isqrt(n_patches)
        return [Layout.squares(side, side, self.config.scale_factor)] * n_tiles


def refuse_bare_features(kwargs: Mapping[str, Any]) -> None:
    """Raise PruningError for a call that brings the features of its images instead of the encoder's output."""
    features = kwargs.get("image_hidden_states")  # what it was called up to 5.1x
    if features is not None or isinstance(kwargs.get("mm_encoder_outputs"), Tensor):
        raise PruningError(
            "bare features say nothing about their tiles, so their visual tokens cannot be pruned. Pass "
            "pixel_values instead."
        )
