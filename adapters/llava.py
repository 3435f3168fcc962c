"""LLaVA 1.0 and 1.5: one picture is one square of patches, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tokenprune.adapters.base import ModelAdapter, register_adapter
from tokenprune.errors import UnsupportedError
from tokenprune.layout import Layout
from tokenprune.vision import Modality


@register_adapter("LlavaForConditionalGeneration")
class LlavaAdapter(ModelAdapter):
    """For LlavaForConditionalGeneration with a CLIP, SigLIP or DINOv2 tower."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        strategy = self.config.vision_feature_select_strategy
        fitting = "default" if self.n_prefix else "full"
        if strategy != fitting:
            raise UnsupportedError(
                f"vision_feature_select_strategy={strategy!r} with a {self.vision_tower.config.model_type} tower does "
                f"not give one visual token per patch. Set model.config.vision_feature_select_strategy = {fitting!r} "
                f"if the model was trained so."
            )

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        pixels, patch = arguments[modality.pixels], self.vision_tower.config.patch_size
        return [Layout.raster((1, pixels.shape[-2] // patch, pixels.shape[-1] // patch))] * len(pixels)

    def consumed_layer(self, n_layers: int) -> int:
        """vision_feature_layer counts hidden states, of which the first is the embedding; of several, the last."""
        features = self.config.vision_feature_layer
        states = [features] if isinstance(features, int) else features
        layer = max(state - 1 if state >= 0 else n_layers + state for state in states)
        if layer < 0:
            raise UnsupportedError(
                "vision_feature_layer=0 takes the embeddings, which no encoder layer made. Write layer=-2, or the "
                "layer whose attention you want."
            )
        return layer
