"""Keye-VL and Keye-VL 1.5, which only vLLM implements: images of any size, the vision tower of PaddleOCR-VL before a
Qwen3. Videos are not pruned: in Keye-VL, their frames attend to each other, and in 1.5, there is text between them."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from vllm.model_executor.models import keye, keye_vl1_5
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.towers.qwen import assembled, by_frame
from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedQwenVL
from tokenprune.serving.vllm.worker.before_tower import PatchDropping


class KeyeProcessor(GridProcessor, keye.KeyeMultiModalProcessor):
    pruned = ("image",)


class KeyeVL1_5Processor(GridProcessor, keye_vl1_5.KeyeVL1_5MultiModalProcessor):
    pruned = ("image",)


class PrunedKeyeVL(PrunedQwenVL):
    """Shared by both and Isaac, whose patches are in raster order."""

    pruned = ("image",)

    @property
    def tower(self) -> Any:
        return self.visual.vision_model

    def make_patch_dropping(self) -> PatchDropping:
        layers, outputs = self.tower.encoder.layers, [self.tower.post_layernorm]
        return PatchDropping(self.config, layers, outputs, layers[0].self_attn.attn.attn_backend)

    def attention_module(self) -> Any:
        return self.tower.encoder.layers[self.attention_layer].self_attn.attn

    def frame_pixels(self, pixels: Any, grids: Int[Tensor, "images 3"]) -> list[Float[Tensor, "channels height width"]]:
        return assembled(pixels, grids, 1)

    def by_frame(
        self, states: Float[Tensor, "heads patches width"], grids: Int[Tensor, "images 3"]
    ) -> list[Float[Tensor, "heads frame_patches width"]]:
        return by_frame(rearrange(states, "head patch width -> patch head width"), grids, 1)


@MULTIMODAL_REGISTRY.register_processor(
    KeyeProcessor, info=keye.KeyeProcessingInfo, dummy_inputs=keye.KeyeDummyInputsBuilder
)
class PrunedKeye(PrunedKeyeVL, keye.KeyeForConditionalGeneration):
    """vLLM's Keye-VL, pruned."""


@MULTIMODAL_REGISTRY.register_processor(
    KeyeVL1_5Processor, info=keye_vl1_5.KeyeVL1_5ProcessingInfo, dummy_inputs=keye_vl1_5.KeyeVL1_5DummyInputsBuilder
)
class PrunedKeyeVL1_5(PrunedKeyeVL, keye_vl1_5.KeyeVL1_5ForConditionalGeneration):
    """vLLM's Keye-VL 1.5, pruned."""
