"""Gemma 3n: one square of visual tokens, fused from maps of a convolutional tower whose last stages attend."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import isqrt
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import ConvolutionalAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.timm import mobilenet_tower
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Gemma3nForConditionalGeneration")
class Gemma3nAdapter(ConvolutionalAdapter):
    """For Gemma3nForConditionalGeneration. Per-layer embeddings are shortened with the sequence.

    The published tower (MobileNet V5) attends in its last two stages, whose maps it fuses: it repeats the places of the
    last one, doubling the sides, and averages. The last stage is read.
    """

    since = (5, 19)

    def find_attention(self, vision: Any) -> Tower | None:
        return mobilenet_tower(vision)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        side = isqrt(self.config.vision_soft_tokens_per_image)
        layout = Layout(((1, side, side),), to_tokens=partial(fused, side=side))
        return [layout] * len(arguments[modality.pixels])


def fused(values: Float[Tensor, "one places"], side: int) -> Float[Tensor, " visual"]:
    """Fuse a map over the places of the last stage into one over side x side visual tokens."""
    places = interpolate(values.unflatten(1, (isqrt(values.shape[1]), -1))[None], scale_factor=2)
    steps, rest = divmod(places.shape[-1], side)
    joined = interpolate(places, (side, side), mode="bilinear") if rest else avg_pool2d(places, steps)
    return joined.flatten()
