"""Idefics 3 and SmolVLM: square tiles with text between them, whose visual tokens each combine a square of patches."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from vllm.model_executor.models import idefics3, smolvlm
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import equal_tiles
from tokenprune.tokens import Layout


class Idefics3Processor(PruningProcessor, idefics3.Idefics3MultiModalProcessor):
    has_markers = True
    square = True


class PrunedTiles(PrunedModel):
    """Shared by both families."""

    @property
    def decoder(self) -> Any:
        return self.model.text_model

    def attention_module(self) -> Any:
        layers = self.model.vision_model.encoder.layers
        return layers[self.attention_layer].self_attn.attn

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return dict.fromkeys(("pixel_values", "pixel_attention_mask"), arguments["num_patches"].tolist())

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        tile = Layout.squares(side, side, self.config.scale_factor)
        return equal_tiles(self, tile, features, arguments["pixel_values"])


@MULTIMODAL_REGISTRY.register_processor(
    Idefics3Processor, info=idefics3.Idefics3ProcessingInfo, dummy_inputs=idefics3.Idefics3DummyInputsBuilder
)
class PrunedIdefics3(PrunedTiles, idefics3.Idefics3ForConditionalGeneration, SupportsMRoPE):
    """vLLM's Idefics 3, pruned."""


@MULTIMODAL_REGISTRY.register_processor(
    Idefics3Processor, info=smolvlm.SmolVLMProcessingInfo, dummy_inputs=idefics3.Idefics3DummyInputsBuilder
)
class PrunedSmolVLM(PrunedTiles, smolvlm.SmolVLMForConditionalGeneration, SupportsMRoPE):
    """vLLM's SmolVLM, pruned."""
