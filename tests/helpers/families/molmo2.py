"""Molmo 2: a small version and crops of every image, whose patches are pooled; a marker ends every row."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import Molmo2Model

from .base import BREAK, END, IMAGE, PATCH, START, ImageInputs, Size
from .common import CommonFamily

CROP = 6  # patches of a crop's side
POOL = 2
SIDE = CROP // POOL
COLUMN, SMALL_START, FRAME_START, FRAME_END = BREAK, 87, 88, 89  # markers: after a row, before a small version
#: Whether pooled patches are numbered within every image, as from transformers 5.25 on, or over all images.
NUMBERS_EACH = "image_num_crops" in signature(Molmo2Model.get_image_features).parameters


class Molmo2(CommonFamily):
    sizes = ((1, 1), (1, 2))  # in crops, in addition to the small version
    video_sizes = ((2, 1, 1), (3, 1, 1))  # frames
    mixes = False

    def block(self, size: Size) -> list[int]:
        if len(size) == 3:
            timestamp = 2
            return [timestamp, FRAME_START, *[IMAGE] * SIDE**2, FRAME_END] * size[0]
        rows, columns = size
        small = [*[IMAGE] * SIDE, COLUMN] * SIDE
        canvas = [*[IMAGE] * (SIDE * columns), COLUMN] * (SIDE * rows)
        return [SMALL_START, *small, END, START, *canvas, END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        *frames, rows, columns = size
        n_crops = frames[0] if frames else 1 + rows * columns
        pixels = torch.randn(n_crops, CROP**2, 3 * PATCH**2, generator=generator)
        crops = torch.arange(n_crops * CROP**2).view(n_crops, CROP, CROP)
        if frames:
            pooled = torch.cat([pools(crop) for crop in crops])
            grid = torch.tensor([[n_crops, SIDE, SIDE]])
            return {"pixel_values_videos": pixels, "video_token_pooling": pooled, "video_grids": grid}
        canvas = torch.cat([torch.cat(list(line), 1) for line in crops[1:].view(rows, columns, CROP, CROP)])
        return {
            "pixel_values": pixels,
            "image_token_pooling": torch.cat([pools(crops[0]), pools(canvas)]),
            "image_grids": torch.tensor([[SIDE, SIDE, SIDE * rows, SIDE * columns]]),
            "image_num_crops": torch.tensor([n_crops]),
        }

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        """Join images, whose pooled patches are numbered from 0."""
        if NUMBERS_EACH:
            return super().join(images, per_row)
        numbered, start = [], 0
        for image in images:
            (pooling,) = (name for name in image if "pooling" in name)
            numbered.append({**image, pooling: image[pooling] + start})
            start += sum(value.shape[:2].numel() for name, value in image.items() if "pixel" in name)
        return super().join(numbered, per_row)

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        markers = torch.tensor([IMAGE, COLUMN, START, SMALL_START, FRAME_START, END, FRAME_END])
        return {"mm_token_type_ids": torch.isin(ids, markers).long()}


def pools(patches: Tensor) -> Tensor:
    """Return a raster of patches as (visual, patches of each)."""
    squares = patches.unfold(0, POOL, POOL).unfold(1, POOL, POOL)
    return squares.reshape(-1, POOL**2)
