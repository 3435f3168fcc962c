"""Ovis 2: an overview and tiles, whose visual tokens are mixtures of a visual vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.layouts.tiles import run_starts
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower, tower_of
from tokenprune.encoded import Modality
from tokenprune.errors import UnsupportedError
from tokenprune.tokens.layout import Layout


@register_adapter("Ovis2ForConditionalGeneration")
class Ovis2Adapter(ModelAdapter):
    """For Ovis2ForConditionalGeneration.

    The model does not know which tiles belong to one image; the processor's marker before each overview shows it.
    Without markers, every run of visual tokens is an image. Markers are text and stay.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        vision = self.vision_tower.config
        if vision.image_size // vision.patch_size % vision.hidden_stride:
            raise UnsupportedError(
                f"the vision tower's {vision.image_size // vision.patch_size} x "
                f"{vision.image_size // vision.patch_size} patches do not fill squares of hidden_stride="
                f"{vision.hidden_stride}, so some visual tokens show padding. Load a model whose patches do, as all "
                f"published ones are."
            )

    def describe_tower(self) -> Tower:
        return tower_of("ovis2_vision", type(self.model).__name__)  # which older configurations do not say

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        runs, markers = run_starts(visual), self.config.visual_indicator_token_ids
        if not markers:  # nothing shows which tiles belong together
            return runs
        return runs & self.columns_of(markers[0], kwargs).roll(1, 1)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_tiles, n_tokens, _ = output.pooler_output.shape
        stride = self.vision_tower.config.hidden_stride
        side = isqrt(n_tokens) * stride
        return [Layout.squares(side, side, stride)] * n_tiles
