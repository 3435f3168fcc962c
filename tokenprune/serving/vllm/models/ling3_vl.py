"""Ling 3.0 VL, which only vLLM implements: images, and Qwen3-VL's vision tower without features for decoder layers."""

# pyright: reportMissingImports=false

from __future__ import annotations

from vllm.model_executor.models import bailing_moe_v3_vl
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedNormalised


class Ling3VLProcessor(GridProcessor, bailing_moe_v3_vl.BailingMoeV3VLMultiModalProcessor):
    pruned = ("image",)


@MULTIMODAL_REGISTRY.register_processor(
    Ling3VLProcessor,
    info=bailing_moe_v3_vl.BailingMoeV3VLProcessingInfo,
    dummy_inputs=bailing_moe_v3_vl.BailingMoeV3VLDummyInputsBuilder,
)
class PrunedLing3VL(PrunedNormalised, bailing_moe_v3_vl.BailingMoeV3VLForConditionalGeneration):
    """vLLM's Ling 3.0 VL, pruned."""
