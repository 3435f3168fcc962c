"""Cohere Compass: the vision tower of Qwen3-VL, before a language model some of whose layers do not rotate. Its images
come normalised, and it takes no videos."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from vllm.model_executor.models import cohere_compass
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.towers.qwen import frame_pixels
from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedQwenVL


class CohereCompassProcessor(GridProcessor, cohere_compass.CohereCompassMultiModalProcessor):
    pruned = ("image",)


@MULTIMODAL_REGISTRY.register_processor(
    CohereCompassProcessor,
    info=cohere_compass.CohereCompassProcessingInfo,
    dummy_inputs=cohere_compass.CohereCompassDummyInputsBuilder,
)
class PrunedCohereCompass(PrunedQwenVL, cohere_compass.CohereCompassForConditionalGeneration):
    """vLLM's Cohere Compass, pruned."""

    pruned = ("image",)

    def frame_pixels(self, pixels: Any, grids: Int[Tensor, "images 3"]) -> list[Float[Tensor, "channels height width"]]:
        return frame_pixels({"hidden_states": pixels, "grid_thw": grids}, self.config.vision_config)
