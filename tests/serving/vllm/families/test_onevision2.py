"""LLaVA-OneVision 2's patches: their places are cut among the images of a call as their pixels are."""

# pyright: reportMissingImports=false

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from helpers.served.engine import needs_vllm

pytestmark = needs_vllm


def test_rows_of_images() -> None:
    from tokenprune.serving.vllm.models.llava_onevision2 import PrunedLlavaOnevision2

    model: Any = object.__new__(PrunedLlavaOnevision2)
    object.__setattr__(model, "config", SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    rows = model.rows_of_images({"image_grid_thw": torch.tensor([[1, 2, 4], [1, 4, 4]])})
    assert rows == {"pixel_values": [8, 16], "image_embeds": [2, 4], "patch_positions": [8, 16]}
