"""Granite Docling: tiles with text between them, and more features after the first decoder layers (DeepStack)."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from tokenprune.adapters.families.idefics3 import Idefics3Adapter
from tokenprune.adapters.generic import DeepStack
from tokenprune.adapters.layouts.tiles import run_starts, token_ids
from tokenprune.adapters.registry import register_adapter
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


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
