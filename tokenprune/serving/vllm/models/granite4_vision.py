"""Granite 4 Vision: tiles as in LLaVA-NeXT, whose features are added before several decoder layers."""

# pyright: reportMissingImports=false

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from vllm.model_executor.models import granite4_vision, llava
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.granite4_vision import to_tokens_pooled
from tokenprune.adapters.families.llava_next import layout_of_size
from tokenprune.serving.vllm.models.llava_next import PrunedAnyRes
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.tokens import Layout


class Granite4VisionProcessor(PruningProcessor, granite4_vision.Granite4VisionMultiModalProcessor):
    square = True


@MULTIMODAL_REGISTRY.register_processor(
    Granite4VisionProcessor,
    info=granite4_vision.Granite4VisionProcessingInfo,
    dummy_inputs=llava.LlavaDummyInputsBuilder,
)
class PrunedGranite4Vision(PrunedAnyRes, granite4_vision.Granite4VisionForConditionalGeneration, SupportsMRoPE):
    """vLLM's Granite 4 Vision, pruned. What is added before each layer is side by side in the features."""

    @property
    def n_summed(self) -> int:
        return len(self._ds_layer_indices)

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """vLLM leaves out tiles that only pad an image to the tile count of another in its prompt, but not if images
        come in a list."""
        sizes = map(tuple, kwargs["image_sizes"].tolist())
        kwargs["pixel_values"] = [
            tiles[: self.layout_of_size(size).n_tiles]
            for tiles, size in zip(kwargs["pixel_values"], sizes, strict=True)
        ]
        return super().embed_multimodal(**kwargs)

    def layout_of_size(self, size: tuple[int, int]) -> Layout:
        from transformers.models.granite4_vision.modeling_granite4_vision import Granite4VisionModel

        side = int(self.side * Fraction(self.config.downsample_rate))
        strategy = self.config.vision_feature_select_strategy
        layout = layout_of_size(size, Granite4VisionModel, self.config, side, vision_feature_select_strategy=strategy)
        return replace(layout, to_tokens=partial(to_tokens_pooled, to_tokens=layout.to_tokens, side=side))
