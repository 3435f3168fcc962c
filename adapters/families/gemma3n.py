"""Gemma 3n: one square of visual tokens, from a convolutional tower without attention."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.tokens.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Gemma3nForConditionalGeneration")
class Gemma3nAdapter(GenericAdapter):
    """For Gemma3nForConditionalGeneration. What each layer adds for every token is shortened with the sequence."""

    @property
    def offers(self) -> frozenset[str]:
        return super().offers | {"grid"}

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        side = isqrt(self.config.vision_soft_tokens_per_image)
        return [Layout.raster((1, side, side))] * len(arguments[modality.pixels])
