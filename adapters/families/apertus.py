"""Apertus 1.5: visual tokens are codes; row markers are text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Apertus1p5ForConditionalGeneration")
class Apertus1p5Adapter(GenericAdapter):
    """For Apertus1p5ForConditionalGeneration. Audio is untouched."""

    @property
    def offers(self) -> frozenset[str]:
        return super().offers | {"grid"}

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        side = self.config.vision_config.spatial_scale_factor
        return [Layout.raster((1, int(h) // side, int(w) // side)) for h, w in arguments["image_sizes"]]
