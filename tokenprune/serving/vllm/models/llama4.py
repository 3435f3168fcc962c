"""Llama 4: square tiles with separators between them and an overview, whose visual tokens each combine a square of
patches."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor
from vllm.model_executor.models import mllama4
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.towers.from_config import n_heads
from tokenprune.serving.vllm.worker.capture import AttentionCapture
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import equal_tiles
from tokenprune.tokens import Layout


class Llama4Processor(PruningProcessor, mllama4.Mllama4MultiModalProcessor):
    has_markers = True
    square = True


class LastClsCapture(AttentionCapture):
    """The capture for a tower whose CLS token comes last; it is returned first, as in other towers."""

    def heads(self) -> tuple[Float[Tensor, "tiles heads tokens width"], Float[Tensor, "tiles heads tokens width"]]:
        queries, keys = super().heads()
        return queries.roll(1, 2), keys.roll(1, 2)


@MULTIMODAL_REGISTRY.register_processor(
    Llama4Processor, info=mllama4.Mllama4ProcessingInfo, dummy_inputs=mllama4.Mllama4DummyInputsBuilder
)
class PrunedLlama4(PrunedModel, mllama4.Llama4ForConditionalGeneration, SupportsMRoPE):
    """vLLM's Llama 4, pruned."""

    def make_capture(self) -> LastClsCapture:
        return LastClsCapture(self.attention_module(), n_heads(self.config.vision_config))

    def attention_module(self) -> Any:
        layers = self.vision_model.model.layers
        return layers[self.attention_layer].self_attn.attn

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return {"pixel_values": arguments["patches_per_image"].tolist()}

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        vision = self.config.vision_config
        side, merge = vision.image_size // vision.patch_size, round(1 / vision.pixel_shuffle_ratio)
        return equal_tiles(self, Layout.squares(side, side, merge), features, arguments["pixel_values"])
