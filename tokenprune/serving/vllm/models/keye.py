"""Keye-VL and Keye-VL 1.5, which only vLLM implements: images of any size, the vision tower of PaddleOCR-VL before a
Qwen3. Videos are not pruned: in Keye-VL, their frames attend to each other, and in 1.5, there is text between them."""

# pyright: reportMissingImports=false

from __future__ import annotations

from vllm.model_executor.models import keye, keye_vl1_5
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import GridProcessor
from tokenprune.serving.vllm.models.raster import PrunedRaster


class KeyeProcessor(GridProcessor, keye.KeyeMultiModalProcessor):
    pruned = ("image",)


class KeyeVL1_5Processor(GridProcessor, keye_vl1_5.KeyeVL1_5MultiModalProcessor):
    pruned = ("image",)


@MULTIMODAL_REGISTRY.register_processor(
    KeyeProcessor, info=keye.KeyeProcessingInfo, dummy_inputs=keye.KeyeDummyInputsBuilder
)
class PrunedKeye(PrunedRaster, keye.KeyeForConditionalGeneration):
    """vLLM's Keye-VL, pruned."""


@MULTIMODAL_REGISTRY.register_processor(
    KeyeVL1_5Processor, info=keye_vl1_5.KeyeVL1_5ProcessingInfo, dummy_inputs=keye_vl1_5.KeyeVL1_5DummyInputsBuilder
)
class PrunedKeyeVL1_5(PrunedRaster, keye_vl1_5.KeyeVL1_5ForConditionalGeneration):
    """vLLM's Keye-VL 1.5, pruned."""
