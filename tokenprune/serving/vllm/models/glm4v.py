"""GLM-4.1V, GLM-4.5V and GLM-OCR: images and videos of any size, position IDs with three components."""

# pyright: reportMissingImports=false

from __future__ import annotations

from vllm.model_executor.models import glm4_1v, glm_ocr
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedQwenVL


class Glm4vProcessor(GridProcessor, glm4_1v.Glm4vMultiModalProcessor): ...


with_processor = MULTIMODAL_REGISTRY.register_processor(
    Glm4vProcessor, info=glm4_1v.Glm4vProcessingInfo, dummy_inputs=glm4_1v.Glm4vDummyInputsBuilder
)


@with_processor
class PrunedGlm4v(PrunedQwenVL, glm4_1v.Glm4vForConditionalGeneration):
    """vLLM's GLM-4.1V, pruned."""


@with_processor
class PrunedGlm4vMoe(PrunedQwenVL, glm4_1v.Glm4vMoeForConditionalGeneration):
    """vLLM's GLM-4.5V, which has experts, pruned."""


@with_processor
class PrunedGlmOcr(PrunedQwenVL, glm_ocr.GlmOcrForConditionalGeneration):
    """vLLM's GLM-OCR, pruned."""
