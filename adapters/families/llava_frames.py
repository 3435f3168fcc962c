"""LLaVA with video frames passed as the images of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from tokenprune.adapters.families.llava import LlavaAdapter
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


class LlavaFramesAdapter(LlavaAdapter):
    """For a LlavaForConditionalGeneration that is asked about videos: all images of a row are the frames of one video.

    No class is registered for it: write patch(model, EVS(), adapter=LlavaFramesAdapter). A row with one image has
    nothing to compare.
    """

    @property
    def frames_offered(self) -> frozenset[str]:
        return frozenset({"frames"})

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        frames = super().layouts(modality, arguments, output)
        return [replace(frame, frame=torch.zeros(frame.n_visual, dtype=torch.long, device="cpu")) for frame in frames]

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        return visual & (visual.cumsum(1) == 1)
