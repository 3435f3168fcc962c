"""Inkling: each visual token is encoded on its own, from one square of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.layouts.tiles import run_starts
from tokenprune.adapters.registry import register_adapter


@register_adapter("InklingForConditionalGeneration")
class InklingAdapter(GenericAdapter):
    """For InklingForConditionalGeneration. As in Inkling 2, position IDs make no difference. Audio stays.

    The model knows neither which squares belong to one image nor where they are in it, but the processor writes them
    without a gap: a run of placeholder tokens is an image.
    """

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        return run_starts(visual)
