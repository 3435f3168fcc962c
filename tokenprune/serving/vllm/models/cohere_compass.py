"""Cohere Compass: the vision tower of Qwen3-VL, before a language model some of whose layers do not rotate. Its images
arrive normalised, and it takes no videos."""

# pyright: reportMissingImports=false

from __future__ import annotations

from vllm.model_executor.models import cohere_compass
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedNormalised


class CohereCompassProcessor(GridProcessor, cohere_compass.CohereCompassMultiModalProcessor):
    pruned = ("image",)


@MULTIMODAL_REGISTRY.register_processor(
    CohereCompassProcessor,
    info=cohere_compass.CohereCompassProcessingInfo,
    dummy_inputs=cohere_compass.CohereCompassDummyInputsBuilder,
)
class PrunedCohereCompass(PrunedNormalised, cohere_compass.CohereCompassForConditionalGeneration):
    """vLLM's Cohere Compass, pruned."""
