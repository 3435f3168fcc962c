"""PaddleOCR-VL: images of any size, whose patches are merged after the vision tower. vLLM 0.32 encodes them one by one,
0.33 all at once."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from vllm.model_executor.models import paddleocr_vl
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.towers.qwen import assembled, by_frame
from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedQwenVL
from tokenprune.serving.vllm.worker.before_tower import PatchDropping


class PaddleOCRVLProcessor(GridProcessor, paddleocr_vl.PaddleOCRVLMultiModalProcessor):
    pruned = ("image",)


@MULTIMODAL_REGISTRY.register_processor(
    PaddleOCRVLProcessor,
    info=paddleocr_vl.PaddleOCRVLProcessingInfo,
    dummy_inputs=paddleocr_vl.PaddleOCRVLDummyInputsBuilder,
)
class PrunedPaddleOCRVL(PrunedQwenVL, paddleocr_vl.PaddleOCRVLForConditionalGeneration):
    """vLLM's PaddleOCR-VL, pruned. Patches are in raster order, and it takes no videos."""

    pruned = ("image",)

    def make_patch_dropping(self) -> PatchDropping:
        tower = self.visual.vision_model
        return PatchDropping(self.config, tower.encoder.layers, [tower.post_layernorm], tower.encoder.attn_backend)

    def attention_module(self) -> Any:
        layers = self.visual.vision_model.encoder.layers
        return layers[self.attention_layer].self_attn.attn

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        sizes = self.grids(arguments).prod(-1).tolist()
        return {"pixel_values": sizes} if in_one_row(arguments["pixel_values"]) else {}

    def frame_pixels(self, pixels: Any, grids: Int[Tensor, "images 3"]) -> list[Float[Tensor, "channels height width"]]:
        return assembled(pixels if in_one_row(pixels) else torch.cat(list(pixels)), grids, 1)

    def by_frame(
        self, states: Float[Tensor, "heads patches width"], grids: Int[Tensor, "images 3"]
    ) -> list[Float[Tensor, "heads frame_patches width"]]:
        return by_frame(rearrange(states, "head patch width -> patch head width"), grids, 1)


def in_one_row(pixels: Any) -> bool:
    """Whether the patches of all images are in one tensor, (patches, channels, height, width), as in vLLM 0.33."""
    return isinstance(pixels, Tensor) and pixels.ndim == 4
