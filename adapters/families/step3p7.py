"""Step 3.7: crops of an image, each between markers, and then the image."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from tokenprune.adapters.families.deepseek_ocr2 import crops_and_whole
from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.tokens.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Step3p7ForConditionalGeneration")
class Step3p7Adapter(GenericAdapter):
    """For Step3p7ForConditionalGeneration. Two convolutions make a visual token of 4 x 4 patches, so no attention of
    the tower is that of one. Markers are text and stay."""

    @property
    def offers(self) -> frozenset[str]:
        return super().offers | {"grid"}

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_whole = output.last_hidden_state.shape[1]
        counts = arguments.get("num_local_patches")
        counts = [0] * len(output.pooler_output) if counts is None else [int(count) for count in counts]
        layouts = []
        for image, n_crops in zip(output.pooler_output, counts, strict=True):
            part, side = isqrt((len(image) - n_whole) // max(n_crops, 1)), isqrt(n_whole)
            tiles = [*[Layout.raster((1, part, part))] * n_crops, Layout.raster((1, side, side))]
            layouts.append(Layout.concat(tiles) if n_crops else tiles[0])
        return layouts

    def image_pixels(self, modality: Modality, arguments: Mapping[str, Any], layouts: list[Layout]) -> list[Tensor]:
        return crops_and_whole(modality, arguments, layouts)
