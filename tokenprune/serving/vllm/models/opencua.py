"""OpenCUA, which only vLLM implements: the vision tower of Qwen2.5-VL, before position IDs that count tokens."""

# pyright: reportMissingImports=false

from __future__ import annotations

from vllm.model_executor.models import opencua
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedQwenVL


class OpenCUAProcessor(GridProcessor, opencua.OpenCUAMultiModalProcessor):
    pruned = ("image",)


@MULTIMODAL_REGISTRY.register_processor(
    OpenCUAProcessor, info=opencua.OpenCUAProcessingInfo, dummy_inputs=opencua.OpenCUADummyInputsBuilder
)
class PrunedOpenCUA(PrunedQwenVL, opencua.OpenCUAForConditionalGeneration):
    """vLLM's OpenCUA, pruned."""

    n_components = 1
    pruned = ("image",)
