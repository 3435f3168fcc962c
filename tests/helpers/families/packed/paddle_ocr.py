"""PaddleOCR-VL: patches in raster order, merged after the tower."""

from typing import Any

import torch
from transformers import PaddleOCRVLConfig

from helpers.families.base import PATCH, ImageInputs, Size, tower
from helpers.families.packed.mrope import MRope
from helpers.families.qwen_vl import MERGE


class PaddleOCRVL(MRope):
    class_name = "PaddleOCRVLForConditionalGeneration"
    video_sizes = ()

    def config(self) -> Any:
        vision = tower(8 * PATCH, spatial_merge_size=MERGE)
        text = {**self.text(), "head_dim": 8}
        return PaddleOCRVLConfig(vision_config=vision, text_config=text, **self.tokens())

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        t, h, w = self.grid(size)
        pixels = torch.randn(t * h * w, 3, PATCH, PATCH, generator=generator)
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[t, h, w]])}
