"""Idefics2: an image of any size is resampled to the same number of visual tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.adapters.families.idefics3 import refuse_bare_features
from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.tokens.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("Idefics2ForConditionalGeneration")
class Idefics2Adapter(GenericAdapter):
    """For Idefics2ForConditionalGeneration.

    A visual token is a query that has read all patches, so it has no place on a grid. Each crop of an image is an
    image.
    """

    @property
    def language_model(self) -> nn.Module:
        return self.core.text_model

    def encoded(self, modality: Modality, kwargs: Mapping[str, Any]) -> Any:
        refuse_bare_features(kwargs)
        return super().encoded(modality, kwargs)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_tokens = self.config.perceiver_config.resampler_n_latents  # the output joins the images of a row
        return [Layout.raster((1, 1, n_tokens))] * len(output.last_hidden_state)

    def image_pixels(self, modality: Modality, arguments: Mapping[str, Any], layouts: list[Layout]) -> list[Tensor]:
        pixels = arguments[modality.pixels].flatten(0, 1)
        return list(pixels[torch.any(pixels.flatten(1) != 0, 1)])  # others fill up rows with fewer images
