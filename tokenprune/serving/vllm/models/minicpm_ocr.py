"""MiniCPM-OCR: MiniCPM-V 4.6 with four times as many visual tokens. Its slices may have different sizes."""

# pyright: reportMissingImports=false

from __future__ import annotations

from vllm.model_executor.models import minicpm_ocr, minicpmv
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.minicpm import PrunedSlices, SlicesProcessor


class MiniCPMOcrProcessor(SlicesProcessor, minicpm_ocr.MiniCPMOcrMultiModalProcessor): ...


@MULTIMODAL_REGISTRY.register_processor(
    MiniCPMOcrProcessor, info=minicpm_ocr.MiniCPMOcrProcessingInfo, dummy_inputs=minicpmv.MiniCPMVDummyInputsBuilder
)
class PrunedMiniCPMOcr(PrunedSlices, minicpm_ocr.MiniCPMOcrForConditionalGeneration):
    """vLLM's MiniCPM-OCR, pruned. Its position IDs count tokens."""
