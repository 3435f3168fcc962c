"""dots.ocr, which only vLLM implements: a vision tower like that of Qwen2-VL, before position IDs that count tokens."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from vllm.model_executor.models import dots_ocr
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import PrunedNormalised, Qwen2VLProcessor


class DotsOCRProcessor(Qwen2VLProcessor):
    pruned = ("image",)


@MULTIMODAL_REGISTRY.register_processor(
    DotsOCRProcessor, info=dots_ocr.DotsOCRProcessingInfo, dummy_inputs=dots_ocr.DotsOCRDummyInputsBuilder
)
class PrunedDotsOCR(PrunedNormalised, dots_ocr.DotsOCRForCausalLM):
    """vLLM's dots.ocr, pruned."""

    n_components = 1

    @property
    def visual(self) -> Any:
        """The vision tower, by the name that it has in Qwen-VL."""
        return self.vision_tower
