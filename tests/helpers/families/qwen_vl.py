"""Qwen-VL: images and videos of any size as one row of patches, and position IDs of three components."""

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3VLConfig

from .base import BREAK, END, IMAGE, PATCH, START, VIDEO, Family, ImageInputs, Size, decoder

MERGE = 2
FRAMES_PER_STEP = 2


class PackedImages(Family):
    """Images and videos as one row of patches, with a grid for each; sizes are in pixels and frames."""

    marks_steps = False  # whether each step of a video has a timestamp and markers of its own
    sizes = ((32, 32), (48, 32), (24, 40))  # 4 x 4, 6 x 4 and 3 x 5 visual tokens
    video_sizes = ((4, 32, 24), (6, 24, 24))  # 2 steps of 4 x 3, 3 of 3 x 3

    def vision(self, **settings: Any) -> Any:
        return {
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": FRAMES_PER_STEP,
            **settings,
        }

    def tokens(self) -> Any:
        return {
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
            "vision_start_token_id": START,
            "vision_end_token_id": END,
        }

    def grid(self, size: Size) -> list[int]:
        """Return (t, h, w) in patches."""
        frames, height, width = size if len(size) == 3 else (FRAMES_PER_STEP, *size)
        return [frames // FRAMES_PER_STEP, height // PATCH, width // PATCH]

    def block(self, size: Size) -> list[int]:
        t, h, w = self.grid(size)
        if len(size) == 3 and self.marks_steps:
            timestamp = BREAK
            return [timestamp, START, *[VIDEO] * (h * w // MERGE**2), END] * t
        return [START, *[VIDEO if len(size) == 3 else IMAGE] * (t * h * w // MERGE**2), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        t, h, w = self.grid(size)
        pixels = torch.randn(t * h * w, 3 * FRAMES_PER_STEP * PATCH**2, generator=generator)
        if len(size) == 3:
            return {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([[t, h, w]])}
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[t, h, w]])}

    def repeats_rows(self) -> bool:
        return True


class QwenVL(PackedImages):
    """Common code of the generations of Qwen-VL."""

    volatile = ("rope_deltas",)

    def text(self, **settings: Any) -> Any:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], **settings}
        return decoder(rope_parameters=rope)

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": ((ids == IMAGE) + 2 * (ids == VIDEO)).int()}

    def position_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if "image_grid_thw" not in inputs and "video_grid_thw" not in inputs:
            return super().position_ids(model, inputs).expand(3, -1, -1)
        pixels = ("pixel_values", "pixel_values_videos")
        ids, _ = model.model.get_rope_index(**{k: v for k, v in inputs.items() if k not in pixels})
        return ids

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return position IDs for embeddings: without token IDs, transformers does not find the images, and counts
        columns."""
        return super().position_ids(model, inputs).expand(3, -1, -1)

    def compact_ids(self, model: Any, inputs: dict[str, Any], dropped: Tensor) -> Tensor:
        """Return compact IDs: in rows that lose anything, what is left is numbered like text."""
        left = inputs["attention_mask"].bool() & ~dropped
        counted = (left.cumsum(1) - 1).clamp(min=0)
        return torch.where(dropped.any(1, keepdim=True), counted, self.position_ids(model, inputs))


class Qwen2VL(QwenVL):
    class_name = "Qwen2VLForConditionalGeneration"

    def config(self) -> Any:
        vision = self.vision(embed_dim=32, hidden_size=32, mlp_ratio=2)
        del vision["intermediate_size"]
        return Qwen2VLConfig(vision_config=vision, text_config=self.text(), **self.tokens())


class Qwen2_5_VL(QwenVL):
    """Every layer of the tower but one attends within windows of 2 x 2 visual tokens."""

    class_name = "Qwen2_5_VLForConditionalGeneration"

    def config(self) -> Any:
        vision = self.vision(window_size=2 * MERGE * PATCH, fullatt_block_indexes=[1], out_hidden_size=32)
        return Qwen2_5_VLConfig(vision_config=vision, text_config=self.text(), **self.tokens())


class Qwen3VL(QwenVL):
    """Features of two tower layers are added again after decoder layers; every step of a video has its own markers."""

    class_name = "Qwen3VLForConditionalGeneration"
    marks_steps = True

    def config(self) -> Any:
        vision = self.vision(out_hidden_size=32, num_position_embeddings=64, deepstack_visual_indexes=[0, 1])
        text = {**self.text(mrope_interleaved=True), "head_dim": 8}
        return Qwen3VLConfig(vision_config=vision, text_config=text, **self.tokens())
