"""Emu3 and Apertus 1.5: visual tokens are codes. In Emu3, an extra one ends each row; in Apertus, text does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Emu3ForConditionalGeneration")
class Emu3Adapter(GenericAdapter):
    """For Emu3ForConditionalGeneration. When it draws, its prompt is text, and nothing is pruned."""

    since = (5, 19)

    @property
    def language_model(self) -> nn.Module:
        return self.core.text_model

    @property
    def offers(self) -> frozenset[str]:
        return super().offers | {"grid"}

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        side = self.core.vqmodel.vision_spatial_factor
        layouts = []
        for height, width in arguments["image_sizes"]:
            rows, columns = int(height) // side, int(width) // side + 1
            newlines = (torch.arange(columns) == columns - 1).repeat(rows)
            layouts.append(Layout(((1, rows, columns),), newlines=newlines))
        return layouts


@register_adapter("Apertus1p5ForConditionalGeneration")
class Apertus1p5Adapter(GenericAdapter):
    """For Apertus1p5ForConditionalGeneration. Audio is untouched."""

    @property
    def offers(self) -> frozenset[str]:
        return super().offers | {"grid"}

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        side = self.config.vision_config.spatial_scale_factor
        return [Layout.raster((1, int(h) // side, int(w) // side)) for h, w in arguments["image_sizes"]]
