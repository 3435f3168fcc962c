"""Cosmos 3 Edge: SigLIP 2 with packed patches."""

from typing import Any

import torch
from transformers import Cosmos3EdgeConfig

from helpers.families.base import PATCH, ImageInputs, Size, tower
from helpers.families.packed.mrope import MRope
from helpers.families.qwen_vl import MERGE


class Cosmos3Edge(MRope):
    """Every frame of a video has a timestamp and markers of its own."""

    class_name = "Cosmos3EdgeForConditionalGeneration"
    marks_steps = True
    video_sizes = ((2, 32, 24), (3, 24, 24))

    def config(self) -> Any:
        vision = tower(8 * PATCH, spatial_merge_size=MERGE, num_patches=16)
        del vision["image_size"]
        text = {**self.text(), "head_dim": 8}
        return Cosmos3EdgeConfig(vision_config=vision, text_config=text, projector_hidden_size=48, **self.tokens())

    def grid(self, size: Size) -> list[int]:
        frames, height, width = size if len(size) == 3 else (1, *size)
        return [frames, height // PATCH, width // PATCH]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        grid = torch.tensor([self.grid(size)])
        pixels = torch.randn(int(grid.prod()), 3 * PATCH**2, generator=generator)
        if len(size) == 3:
            return {"pixel_values_videos": pixels, "video_grid_thw": grid}
        return {"pixel_values": pixels, "image_grid_thw": grid}
