"""Kimi-VL, which only vLLM implements: images of any size."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad
from vllm.model_executor.models import kimi_vl
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.kimi import PrunedKimi
from tokenprune.serving.vllm.processor.patches import frames_of
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.tokens import PatchTokens


class KimiVLProcessor(PruningProcessor, kimi_vl.KimiVLMultiModalProcessor):
    def patches(self, modality: str, item: Any) -> Sequence[PatchTokens]:
        grid = of_one_frame(item["image_grid_hws"].data)
        return frames_of(self.info.get_hf_config(), item["pixel_values"].data, grid)


@MULTIMODAL_REGISTRY.register_processor(
    KimiVLProcessor, info=kimi_vl.KimiVLProcessingInfo, dummy_inputs=kimi_vl.KimiVLDummyInputsBuilder
)
class PrunedKimiVL(PrunedKimi, kimi_vl.KimiVLForConditionalGeneration, SupportsMRoPE):
    """vLLM's Kimi-VL, pruned."""

    def grids(self, arguments: dict[str, Any]) -> Int[Tensor, "images 3"]:
        return of_one_frame(arguments["image_grid_hws"])

    def normalised(self, patches: Float[Tensor, "patches channels y x"]) -> Float[Tensor, "patches channels y x"]:
        return patches


def of_one_frame(grids: Int[Tensor, "*images 2"]) -> Int[Tensor, "*images 3"]:
    """Rows and columns of patches, after a number of frames."""
    return pad(grids, (1, 0), value=1)
