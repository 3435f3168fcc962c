"""Inkling 2: grids count visual tokens; layers with a short convolution beside their attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.tokens.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Inkling2ForConditionalGeneration", "Inkling2LoopForConditionalGeneration")
class Inkling2Adapter(GenericAdapter):
    """For Inkling2ForConditionalGeneration and Inkling2LoopForConditionalGeneration.

    Attention knows distances in the cache only, windows included, so what is dropped was never there: position IDs make
    no difference.
    """

    @property
    def offers(self) -> frozenset[str]:
        return super().offers | {"grid"}

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        return [Layout.raster((t, h, w)) for t, h, w in arguments["image_grid_thw"].tolist()]
