"""Gemma 3: one picture is one square of visual tokens, each the mean of a square of patches."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from einops import reduce
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.layout import Layout
from tokenprune.vision import Modality


@register_adapter("Gemma3ForConditionalGeneration")
class Gemma3Adapter(ModelAdapter):
    """The visual tokens of a picture attend to each other in both directions."""

    patterns = True

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        side = isqrt(self.config.mm_tokens_per_image)
        vision = self.vision_tower.config
        patches = vision.image_size // vision.patch_size // side  # along a visual token's side

        def carry(values: Float[Tensor, "tiles patches"]) -> Float[Tensor, " visual"]:
            return reduce(values, "1 (h y w x) -> (h w)", "mean", h=side, w=side, y=patches, x=patches)

        return [Layout(((1, side, side),), carry=carry)] * len(arguments[modality.pixels])
