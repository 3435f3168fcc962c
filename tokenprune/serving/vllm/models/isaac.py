"""Isaac, which only vLLM implements: images of any size, the layers of PaddleOCR-VL's vision tower before a Qwen3.

A patch is a row of pixels, not of channels. In position IDs, rows and columns count from zero in every image.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from vllm.model_executor.models import isaac
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import GridProcessor
from tokenprune.serving.vllm.models.raster import PrunedRaster
from tokenprune.serving.vllm.processor.patches import frames_of
from tokenprune.serving.vllm.towers.from_config import config_with_tower
from tokenprune.tokens import PatchTokens


class IsaacProcessor(GridProcessor, isaac.IsaacMultiModalProcessor):
    pruned = ("image",)

    def patches(self, modality: str, item: Any) -> Sequence[PatchTokens]:
        config = self.info.get_hf_config()
        pixels = channels_first(item["pixel_values"].data, config_with_tower(config).vision_config)
        return frames_of(config, pixels, item["image_grid_thw"].data)


class WithTowerConfig(isaac.IsaacForConditionalGeneration):
    """vLLM's model, with its vision tower described as PaddleOCR-VL's is."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.config = config_with_tower(self.config)


@MULTIMODAL_REGISTRY.register_processor(
    IsaacProcessor, info=isaac.IsaacProcessingInfo, dummy_inputs=isaac.IsaacDummyInputsBuilder
)
class PrunedIsaac(PrunedRaster, WithTowerConfig):
    """vLLM's Isaac, pruned."""

    @property
    def tower(self) -> Any:
        return self.vision_embedding.transformer

    def frame_pixels(self, pixels: Any, grids: Int[Tensor, "images 3"]) -> list[Float[Tensor, "channels height width"]]:
        return super().frame_pixels(channels_first(pixels, self.config.vision_config), grids)


def channels_first(
    patches: Float[Tensor, "patches values"], vision_config: Any
) -> Float[Tensor, "patches channels y x"]:
    """Patches whose colours are the last axis, with the colours first."""
    side = vision_config.patch_size
    return rearrange(patches, "patch (y x channel) -> patch channel y x", y=side, x=side)
