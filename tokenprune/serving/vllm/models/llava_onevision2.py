"""LLaVA-OneVision 2, which only vLLM implements: patches of images of any size, in the order of Qwen2-VL's, before
position IDs that count tokens. Videos are not pruned: there is text between their frames."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from vllm.model_executor.models import llava_onevision2
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.towers.qwen import assembled
from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedNormalised
from tokenprune.serving.vllm.worker.before_tower import PatchDropping


class LlavaOnevision2Processor(GridProcessor, llava_onevision2.LlavaOnevision2MultiModalProcessor):
    pruned = ("image",)


@MULTIMODAL_REGISTRY.register_processor(
    LlavaOnevision2Processor,
    info=llava_onevision2.LlavaOnevision2ProcessingInfo,
    dummy_inputs=llava_onevision2.LlavaOnevision2DummyInputsBuilder,
)
class PrunedLlavaOnevision2(PrunedNormalised, llava_onevision2.LlavaOnevision2ForConditionalGeneration, SupportsMRoPE):
    """vLLM's LLaVA-OneVision 2, pruned."""

    n_components = 1

    def make_patch_dropping(self) -> PatchDropping:
        tower = self.visual
        return PatchDropping(self.config, tower.encoder.layers, [tower.merger], tower.attn_backend)

    def attention_module(self) -> Any:
        return self.visual.encoder.layers[self.attention_layer].self_attn.attn

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        rows = super().rows_of_images(arguments)
        return {**rows, "patch_positions": rows["pixel_values"]}

    def frame_pixels(self, pixels: Any, grids: Int[Tensor, "images 3"]) -> list[Float[Tensor, "channels height width"]]:
        vision = self.config.vision_config
        patches = pixels.view(len(pixels), -1, vision.patch_size, vision.patch_size)
        return assembled(patches, grids, vision.spatial_merge_size)
