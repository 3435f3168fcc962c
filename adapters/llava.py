"""LLaVA 1.0 and 1.5: one picture is one square of patches, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter, register_adapter
from tokenprune.adapters.towers import tower_of
from tokenprune.errors import PruningError, UnsupportedError
from tokenprune.tokens import Grid3
from tokenprune.vision import RECORD_ATTRIBUTE, AttentionShape, EncodedImage


@register_adapter("LlavaForConditionalGeneration")
class LlavaAdapter(ModelAdapter):
    """For LlavaForConditionalGeneration with a CLIP, SigLIP or DINOv2 tower."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._core: Any = getattr(model, "model", None)
        self._config: Any = model.config
        tower = getattr(self._core, "vision_tower", None)
        if tower is None:
            raise UnsupportedError(
                f"{type(model).__name__} without a vision tower has no visual tokens to prune. Load the whole model, "
                f"for instance with LlavaForConditionalGeneration.from_pretrained(...)."
            )
        self._tower = tower_of(tower.config.model_type, type(model).__name__)
        strategy = self._config.vision_feature_select_strategy
        fitting = "default" if self._tower.n_prefix else "full"
        if strategy != fitting:
            raise UnsupportedError(
                f"vision_feature_select_strategy={strategy!r} with a {tower.config.model_type} tower does not give one "
                f"visual token per patch. Set model.config.vision_feature_select_strategy = {fitting!r} if the model "
                f"was trained so."
            )
        text = self._config.text_config
        if "sliding_attention" in (getattr(text, "layer_types", None) or ()) or getattr(text, "sliding_window", None):
            raise UnsupportedError(
                "a language model with sliding-window attention is not supported: its window counts tokens that "
                "pruning drops. Set model.config.text_config.sliding_window = None before loading the weights if your "
                "prompts are shorter than the window."
            )

    @property
    def core(self) -> nn.Module:
        return self._core

    @property
    def language_model(self) -> nn.Module:
        return self._core.language_model

    @property
    def layers(self) -> nn.ModuleList:
        return self._core.language_model.layers

    @property
    def vision_tower(self) -> nn.Module:
        return self._core.vision_tower

    @property
    def description(self) -> str:
        return f"{type(self.model).__name__} with a {self._core.vision_tower.config.model_type} tower"

    def visual_mask(self, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch length"] | None:
        if kwargs.get("pixel_values") is None and self._encoded(kwargs) is None:
            return None
        placeholder = self._config.image_token_id
        if kwargs.get("input_ids") is not None:
            return kwargs["input_ids"] == placeholder
        embeds = kwargs["inputs_embeds"]
        embedding = self._core.get_input_embeddings()
        return (embeds == embedding(torch.tensor(placeholder, device=embeds.device))).all(-1)

    def pixels(self, kwargs: Mapping[str, Any]) -> Float[Tensor, "images channels height width"]:
        return kwargs["pixel_values"]

    def grids(self, pixels: Float[Tensor, "images channels height width"]) -> list[Grid3]:
        patch = self._core.vision_tower.config.patch_size
        return [(1, pixels.shape[-2] // patch, pixels.shape[-1] // patch)] * len(pixels)

    @property
    def offers(self) -> frozenset[str]:
        return frozenset({"vision_attention", "pixels"} | ({"cls"} if self._tower.n_prefix else set()))

    @property
    def attention_shape(self) -> AttentionShape:
        config = self._core.vision_tower.config
        width = config.hidden_size // config.num_attention_heads
        return AttentionShape(config.num_attention_heads, width**-0.5, self._tower.n_prefix)

    def attention_projections(self, layer: int | None) -> tuple[nn.Module, nn.Module]:
        layers = self._tower.layers(self._core.vision_tower)
        if layer is None:
            layer = self._consumed_layer(len(layers))
            if layer < 0:
                raise UnsupportedError(
                    "vision_feature_layer=0 takes the embeddings, which no encoder layer made. Write layer=-2, or the "
                    "layer whose attention you want."
                )
        if not -len(layers) <= layer < len(layers):
            raise UnsupportedError(
                f"layer={layer} is not in the vision tower, whose layers are 0..{len(layers) - 1} (or -1 for the last)."
            )
        return self._tower.projections(layers[layer])

    def recall(self, kwargs: Mapping[str, Any]) -> list[EncodedImage]:
        output = self._encoded(kwargs)
        if output is None:
            return []
        images: list[EncodedImage] | None = getattr(output, RECORD_ATTRIBUTE, None)
        # Beams repeat the features of a sample as the same tensors, so a picture is known by its first tensor.
        order: dict[int, int] = {}
        for features in output.pooler_output:
            order.setdefault(id(features), len(order))
        if images is None or len(images) != len(order):
            raise PruningError(
                "the pictures were encoded outside this patch, or cut into chunks, so nothing is known about their "
                "tokens. Pass pixel_values, or encode after patch(); in generate() leave prefill_chunk_size out."
            )
        return [images[order[id(features)]] for features in output.pooler_output]

    def _encoded(self, kwargs: Mapping[str, Any]) -> Any:
        """The pictures that `generate` encodes before it calls the model (transformers 5.2x on)."""
        return (kwargs.get("mm_encoder_outputs") or {}).get("image")

    def _consumed_layer(self, n_layers: int) -> int:
        """vision_feature_layer counts hidden states, of which the first is the embedding; of several, the last."""
        features = self._config.vision_feature_layer
        states = [features] if isinstance(features, int) else features
        return max(state - 1 if state >= 0 else n_layers + state for state in states)
