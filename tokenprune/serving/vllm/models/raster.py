"""What Keye-VL and Isaac share: the layers of PaddleOCR-VL's vision tower, for images of any size whose patches are in
raster order."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.adapters.towers.qwen import assembled, by_frame
from tokenprune.serving.vllm.models.qwen_vl import PrunedQwenVL
from tokenprune.serving.vllm.worker.before_tower import PatchDropping


class PrunedRaster(PrunedQwenVL):
    """vLLM's Keye-VL or Isaac, pruned."""

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
