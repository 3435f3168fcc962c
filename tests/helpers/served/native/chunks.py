"""Kimi's chunks of frames, as transformers takes them."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from PIL import Image
from torch import Tensor


def with_chunks(inputs: Any, chunks: list[list[Image.Image]], processor: Any) -> Any:
    """Return inputs in which the last images, each the first frame of a chunk, are replaced by whole chunks of equal
    length. The processor itself would write times between frames."""
    grids, pixels, ids = inputs["image_grid_thw"], inputs["pixel_values"], inputs["input_ids"]
    images, frames = grids[: -len(chunks)], [frame for one in chunks for frame in one]
    n_patches, visual = int(images.prod(-1).sum()), ids == processor.image_token_id
    of_chunks = visual & (visual.cumsum(-1) > n_patches // processor.image_processor.merge_size**2)
    inputs["input_ids"] = ids.masked_fill(of_chunks, processor.video_token_id)
    inputs["pixel_values_videos"] = processor.image_processor(frames, return_tensors="pt")["pixel_values"]
    inputs["video_grid_thw"] = grids[-len(chunks) :] * torch.tensor([[len(chunks[0]), 1, 1]])
    if len(images):
        inputs["image_grid_thw"], inputs["pixel_values"] = images, pixels[:n_patches]
    else:
        del inputs["image_grid_thw"], inputs["pixel_values"]
    return inputs


def count_averaged_frames() -> None:
    """Correct transformers 5.19, which splits the features of chunks as if the tower did not average their frames."""
    from transformers.models.kimi_k25.modeling_kimi_k25 import Kimi_K25Model

    original: Any = Kimi_K25Model.get_image_features

    @wraps(original)
    def of_frames(self: Any, pixel_values: Tensor, image_grid_thw: Tensor, **kwargs: Any) -> Any:
        side = self.vision_tower.merge_kernel_size[0]
        output = self.vision_tower(pixel_values, grid_thw=image_grid_thw)
        features = self.mm_projector(output.pooler_output).squeeze(1)
        output.pooler_output = features.split((image_grid_thw[:, 1:].prod(-1) // side**2).tolist())
        return output

    Kimi_K25Model.get_image_features = of_frames  # pyright: ignore[reportAttributeAccessIssue]
