"""Qwen3.5, Intern-S2 Preview and Intern-S2 Mobius: Qwen3-VL with linear attention in most decoder layers, whose states
never see dropped tokens."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from importlib.util import find_spec

from vllm.model_executor.models import interns2_mobius, interns2_preview, qwen3_5, qwen3_vl
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import PrunedQwenVL, Qwen3VLProcessor

if find_spec("vllm.models.qwen3_5"):  # from vLLM 0.34 on, with a class of its own for NVIDIA's GPUs
    from vllm.models.qwen3_5 import Qwen3_5ForConditionalGeneration, Qwen3_5MoeForConditionalGeneration
else:
    from vllm.model_executor.models.qwen3_5 import Qwen3_5ForConditionalGeneration, Qwen3_5MoeForConditionalGeneration


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLProcessor, info=qwen3_5.Qwen3_5ProcessingInfo, dummy_inputs=qwen3_vl.Qwen3VLDummyInputsBuilder
)
class PrunedQwen3_5(PrunedQwenVL, Qwen3_5ForConditionalGeneration):
    """vLLM's Qwen3.5, pruned."""


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLProcessor, info=qwen3_5.Qwen3_5MoeProcessingInfo, dummy_inputs=qwen3_vl.Qwen3VLDummyInputsBuilder
)
class PrunedQwen3_5Moe(PrunedQwenVL, Qwen3_5MoeForConditionalGeneration):
    """vLLM's Qwen3.5 with experts, pruned."""


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLProcessor,
    info=interns2_preview.InternS2PreviewProcessingInfo,
    dummy_inputs=qwen3_vl.Qwen3VLDummyInputsBuilder,
)
class PrunedInternS2(PrunedQwenVL, interns2_preview.InternS2PreviewForConditionalGeneration):
    """vLLM's Intern-S2 Preview, pruned."""


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLProcessor, info=interns2_mobius.InternS2MobiusProcessingInfo, dummy_inputs=qwen3_vl.Qwen3VLDummyInputsBuilder
)
class PrunedInternS2Mobius(PrunedQwenVL, interns2_mobius.InternS2MobiusForConditionalGeneration):
    """vLLM's Intern-S2 Mobius, pruned."""
