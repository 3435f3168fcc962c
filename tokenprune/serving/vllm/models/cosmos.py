"""Cosmos 3, which is Qwen3-VL, and Cosmos 3 Edge: a tower like SigLIP 2's, after which patches are merged. vLLM gives
it patches in raster order."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from vllm.model_executor.models import cosmos3, cosmos3_edge, qwen3_vl
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.towers.qwen import assembled, by_frame
from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedQwenVL, Qwen3VLProcessor


class Cosmos3EdgeProcessor(GridProcessor, cosmos3_edge.Cosmos3EdgeMultiModalProcessor): ...


@MULTIMODAL_REGISTRY.register_processor(
    Cosmos3EdgeProcessor,
    info=cosmos3_edge.Cosmos3EdgeProcessingInfo,
    dummy_inputs=cosmos3_edge.Cosmos3EdgeDummyInputsBuilder,
)
class PrunedCosmos3Edge(PrunedQwenVL, cosmos3_edge.Cosmos3EdgeForConditionalGeneration):
    """vLLM's Cosmos 3 Edge, pruned."""

    def attention_module(self) -> Any:
        layers = self.visual.encoder.encoder.layers
        return layers[self.attention_layer].self_attn.attn

    def frame_pixels(self, pixels: Any, grids: Int[Tensor, "images 3"]) -> list[Float[Tensor, "channels height width"]]:
        vision = self.config.vision_config
        side = vision.patch_size
        patches = rearrange(pixels, "patch (y x channel) -> patch channel y x", y=side, x=side)
        # With its own config, vLLM 0.32 also uses its own processor, which leaves patches in raster order.
        raster = not type(self.config).__module__.startswith("transformers.")
        return assembled(patches, grids, 1 if raster else vision.spatial_merge_size)

    def by_frame(
        self, states: Float[Tensor, "heads patches width"], grids: Int[Tensor, "images 3"]
    ) -> list[Float[Tensor, "heads frame_patches width"]]:
        return by_frame(rearrange(states, "head patch width -> patch head width"), grids, 1)


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLProcessor, info=cosmos3.Cosmos3ProcessingInfo, dummy_inputs=qwen3_vl.Qwen3VLDummyInputsBuilder
)
class PrunedCosmos3(PrunedQwenVL, cosmos3.Cosmos3ForConditionalGeneration):
    """vLLM's Cosmos 3, pruned."""
