"""Qwen-VL: images and videos of any size as one row of patches, and position IDs of three components."""

from typing import Any

import torch
from torch import Tensor

from .base import BREAK, END, IMAGE, PATCH, START, VIDEO, Family, ImageInputs, Size
from .common import CommonFamily

MERGE = 2


class PackedImages(Family):
    """Images and videos as one row of patches, with a grid for each; sizes are in pixels and frames.

    per_step: frames that are one step of a video.
    marks_steps: whether each step of a video has a timestamp and markers of its own.
    video_marks: markers around a video without such steps.
    squares: whether a patch is a square of pixels, instead of a row.
    """

    per_step = 2
    marks_steps = False
    video_marks = (START, END)
    squares = False
    sizes = ((32, 32), (48, 32), (24, 40))  # 4 x 4, 6 x 4 and 3 x 5 visual tokens
    video_sizes = ((4, 32, 24), (6, 24, 24))  # 2 steps of 4 x 3, 3 of 3 x 3

    def grid(self, size: Size) -> list[int]:
        """Return (t, h, w) in patches."""
        frames, height, width = size if len(size) == 3 else (self.per_step, *size)
        return [frames // self.per_step, height // PATCH, width // PATCH]

    def block(self, size: Size) -> list[int]:
        t, h, w = self.grid(size)
        n_visual = h * w // MERGE**2
        if len(size) == 2:
            return [START, *[IMAGE] * n_visual, END]
        if self.marks_steps:
            timestamp = BREAK
            return [timestamp, START, *[VIDEO] * n_visual, END] * t
        start, end = self.video_marks
        return [start, *[VIDEO] * (t * n_visual), end]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        grid = torch.tensor([self.grid(size)])
        pixels = torch.randn(int(grid.prod()), 3 * self.per_step * PATCH**2, generator=generator)
        if self.squares:
            pixels = pixels.view(-1, 3, PATCH, PATCH)
        if len(size) == 3:
            return {"pixel_values_videos": pixels, "video_grid_thw": grid}
        return {"pixel_values": pixels, "image_grid_thw": grid}

    def repeats_rows(self) -> bool:
        return True


class QwenVL(PackedImages):
    """In Qwen2.5-VL, every layer of the tower but one attends within windows of 2 x 2 visual tokens."""

    volatile = ("rope_deltas",)
    typed = True

    def position_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if "image_grid_thw" not in inputs and "video_grid_thw" not in inputs:
            return super().position_ids(model, inputs).expand(3, -1, -1)
        pixels = ("pixel_values", "pixel_values_videos")
        ids, _ = model.model.get_rope_index(**{k: v for k, v in inputs.items() if k not in pixels})
        return ids

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return position IDs for embeddings: without token IDs, transformers does not find the images, and counts
        columns."""
        return Family.position_ids(self, model, inputs).expand(3, -1, -1)

    def compact_ids(self, model: Any, inputs: dict[str, Any], dropped: Tensor) -> Tensor:
        """Return compact IDs: in rows that lose anything, what is left is numbered like text."""
        left = inputs["attention_mask"].bool() & ~dropped
        counted = (left.cumsum(1) - 1).clamp(min=0)
        return torch.where(dropped.any(1, keepdim=True), counted, self.position_ids(model, inputs))


class Qwen3VL(QwenVL):
    """Features of two tower layers are added again after decoder layers; every step of a video has its own markers."""

    marks_steps = True


class MRope(CommonFamily, QwenVL):
    """Images and videos as in Qwen-VL, with the common oracle."""

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        return QwenVL.embedded_ids(self, model, inputs)


class MRopeSteps(MRope):
    """As in Qwen3-VL: with experts, under another configuration, or in front of Cohere's language model, one layer of
    which has a sliding window, and one does not rotate."""

    marks_steps = True


class Qwen3_5(MRopeSteps):
    """Three in four layers have a state instead of keys. Linear attention sometimes returns nearly zero, and with the
    usual epsilon the norm after it would enlarge rounding errors to 5e-5. In Qwen4-Exp, each query of a sparse layer
    reads at most 4 blocks of 4 keys, and the incomplete last block."""

    contract = "never seen"
