"""Qwen4-Exp: Qwen3.5's tower and position IDs. Its language model also embeds n-grams of the remaining token IDs, and
its attention reads blocks of the remaining keys."""

# pyright: reportMissingImports=false, reportGeneralTypeIssues=false

from __future__ import annotations

from transformers import Qwen4ExpConfig
from vllm.model_executor.models.qwen3_vl import Qwen3VLDummyInputsBuilder, Qwen3VLProcessingInfo
from vllm.models.qwen4_exp import Qwen4ExpForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import PrunedQwenVL, Qwen3VLProcessor


class Qwen4ExpInfo(Qwen3VLProcessingInfo):
    """vLLM's own is in the modules of one platform or another."""

    def get_hf_config(self) -> Qwen4ExpConfig:
        return self.ctx.get_hf_config(Qwen4ExpConfig)


@MULTIMODAL_REGISTRY.register_processor(Qwen3VLProcessor, info=Qwen4ExpInfo, dummy_inputs=Qwen3VLDummyInputsBuilder)
class PrunedQwen4Exp(PrunedQwenVL, Qwen4ExpForConditionalGeneration):
    """vLLM's Qwen4-Exp, pruned."""
