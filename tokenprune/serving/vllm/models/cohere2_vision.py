"""Cohere 2 Vision: square tiles with a token between them, whose visual tokens each combine a square of patches."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from vllm.model_executor.models import cohere2_vision
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.models.llava import PrunedLlavaTower
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.tiles import equal_tiles
from tokenprune.tokens import Layout


class Cohere2VisionProcessor(PruningProcessor, cohere2_vision.Cohere2VisionMultiModalProcessor):
    has_markers = True
    square = True


@MULTIMODAL_REGISTRY.register_processor(
    Cohere2VisionProcessor,
    info=cohere2_vision.Cohere2VisionProcessingInfo,
    dummy_inputs=cohere2_vision.Cohere2VisionDummyInputsBuilder,
)
class PrunedCohere2Vision(PrunedLlavaTower, cohere2_vision.Cohere2VisionForConditionalGeneration, SupportsMRoPE):
    """vLLM's Cohere 2 Vision, pruned."""

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return {"pixel_values": arguments["num_patches"].tolist()}

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        tile = Layout.squares(self.side, self.side, self.config.downsample_factor)
        return equal_tiles(self, tile, features, arguments["pixel_values"])
