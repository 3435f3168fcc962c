"""EXAONE 4.5: the vision tower of Qwen2.5-VL, whose queries share keys here, before position IDs that count tokens."""

# pyright: reportMissingImports=false

from __future__ import annotations

from vllm.model_executor.models import exaone4_5, qwen2_vl
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import PrunedQwenVL, Qwen2VLProcessor


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2VLProcessor, info=exaone4_5.Exaone4_5_ProcessingInfo, dummy_inputs=qwen2_vl.Qwen2VLDummyInputsBuilder
)
class PrunedExaone4_5(PrunedQwenVL, exaone4_5.Exaone4_5_ForConditionalGeneration):
    """vLLM's EXAONE 4.5, pruned."""

    n_components = 1
    # vLLM 0.32 would let the tower normalise pixels, but builds it without the layer that does.
    supports_mm_device_do_normalize = False
