"""Gemma 3: an image is one square of visual tokens, each the mean of a square of patches."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import unwrap
from math import isqrt
from typing import Any

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Gemma3ForConditionalGeneration")
class Gemma3Adapter(ModelAdapter):
    """For Gemma3ForConditionalGeneration. The visual tokens of an image attend to each other in both directions."""

    noncausal = True

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        patches = self.vision_tower.config.image_size // self.vision_tower.config.patch_size
        square = patches // isqrt(self.config.mm_tokens_per_image)
        return [Layout.squares(patches, patches, square)] * len(arguments[modality.pixels])

    def unprunable(self, kwargs: Mapping[str, Any]) -> list[str]:
        # Until transformers 5.1x the loss is written out in `forward`, out of reach.
        by_hand = "loss_function" not in unwrap(type(self.model).forward).__code__.co_names
        return ["labels"] * (by_hand and kwargs.get("labels") is not None) + super().unprunable(kwargs)
