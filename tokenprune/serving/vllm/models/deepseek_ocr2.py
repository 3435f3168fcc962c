"""DeepSeek-OCR 2: queries that have read the crops of an image and the whole image, and a separator."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from vllm.model_executor.models import deepseek_ocr2
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.deepseek_ocr2 import tiles_and_separator
from tokenprune.serving.vllm.models.deepseek_ocr import Crops, CropsProcessor, Grid, PrunedCrops, Whole, side_of
from tokenprune.serving.vllm.worker.capture import ReadingCapture
from tokenprune.tokens import Layout


def layout_of(grid: Grid, whole: Whole, crops: Crops) -> Layout:
    """The layout of an image. An image in a grid of 1 x 1 has no crops."""
    n_crops = int(grid.prod())
    return tiles_and_separator(n_crops if n_crops > 1 else 0, side_of(crops) ** 2, side_of(whole) ** 2)


class DeepseekOCR2Processor(CropsProcessor, deepseek_ocr2.DeepseekOCR2MultiModalProcessor):
    layout_of = staticmethod(layout_of)


@MULTIMODAL_REGISTRY.register_processor(
    DeepseekOCR2Processor,
    info=deepseek_ocr2.DeepseekOCR2ProcessingInfo,
    dummy_inputs=deepseek_ocr2.DeepseekOCR2DummyInputsBuilder,
)
class PrunedDeepseekOCR2(PrunedCrops, deepseek_ocr2.DeepseekOCR2ForCausalLM, SupportsMRoPE):
    """vLLM's DeepSeek-OCR 2, pruned."""

    layout_of = staticmethod(layout_of)

    def make_capture(self) -> ReadingCapture:
        return ReadingCapture(self.qwen2_model.model.model, self.attention_layer)

    def captured(self) -> Sequence[tuple[Tensor, ...]]:
        assert isinstance(self.capture, ReadingCapture)
        return self.capture.tiles
