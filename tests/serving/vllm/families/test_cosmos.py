"""Cosmos 3 Edge's patches: in raster order in vLLM 0.32, which has its own config and processor, and by visual token in
0.33, which uses transformers'."""

# pyright: reportMissingImports=false

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from einops import rearrange
from helpers.served.engine import needs_vllm

pytestmark = needs_vllm
VISION = {"patch_size": 2, "spatial_merge_size": 2}


@pytest.mark.parametrize(
    ("of_transformers", "pattern"),
    [
        (False, "channel (row y) (column x) -> (row column) (y x channel)"),
        (True, "channel (row i y) (column j x) -> (row column i j) (y x channel)"),
    ],
    ids=["0.32", "0.33"],
)
def test_images_from_patches(of_transformers: bool, pattern: str) -> None:
    from transformers import Cosmos3EdgeConfig

    from tokenprune.serving.vllm.models.cosmos import PrunedCosmos3Edge

    model: Any = object.__new__(PrunedCosmos3Edge)
    own = SimpleNamespace(vision_config=SimpleNamespace(**VISION))
    model.config = Cosmos3EdgeConfig(vision_config=VISION) if of_transformers else own
    image = torch.randn(3, 4, 8)
    sizes = {"i": 2, "j": 2} if of_transformers else {}
    patches = rearrange(image, pattern, y=2, x=2, **sizes)
    (found,) = model.frame_pixels(patches, torch.tensor([[1, 2, 4]]))
    assert torch.equal(found, image)
