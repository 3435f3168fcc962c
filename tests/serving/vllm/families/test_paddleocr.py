"""PaddleOCR-VL's patches: one tensor per image in vLLM 0.32, one for all images in 0.33."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import torch
from helpers.served.engine import needs_vllm

pytestmark = needs_vllm
GRIDS = torch.tensor([[1, 2, 4], [1, 4, 2]])


def test_patches_of_all_images_at_once() -> None:
    from tokenprune.serving.vllm.models.paddleocr_vl import PrunedPaddleOCRVL

    model: Any = object.__new__(PrunedPaddleOCRVL)
    patches = torch.randn(16, 3, 14, 14)
    apart, together = ({"pixel_values": one, "image_grid_thw": GRIDS} for one in (patches.split(8), patches))
    stacked = {"pixel_values": patches.unflatten(0, (2, 8)), "image_grid_thw": GRIDS}
    assert model.rows_of_images(together) == {"pixel_values": [8, 8]}
    assert model.rows_of_images(apart) == model.rows_of_images(stacked) == {}
    frames = [model.frame_pixels(one["pixel_values"], GRIDS) for one in (apart, together, stacked)]
    assert [frame.shape for frame in frames[0]] == [(3, 28, 56), (3, 56, 28)]
    assert all(torch.equal(a, b) for other in frames[1:] for a, b in zip(frames[0], other, strict=True))
