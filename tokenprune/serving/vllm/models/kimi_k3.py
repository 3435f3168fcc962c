"""Kimi K3 and K3.1, which only vLLM implements: images, a vision tower like that of Kimi K2.5, and layers that read no
position IDs. vLLM runs both with one class; in K3.1, attention is sparse."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.models import kimi_k3
from vllm.models.kimi_k3.common import mm_preprocess
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.kimi import GridThwsProcessor, PrunedKimi


class KimiK3Processor(GridThwsProcessor, mm_preprocess.KimiK3MultiModalProcessor): ...


@MULTIMODAL_REGISTRY.register_processor(
    KimiK3Processor, info=mm_preprocess.KimiK3ProcessingInfo, dummy_inputs=mm_preprocess.KimiK3DummyInputsBuilder
)
class PrunedKimiK3(PrunedKimi, kimi_k3.KimiK3ForConditionalGeneration, SupportsMRoPE):
    """vLLM's Kimi K3 or K3.1, pruned."""
