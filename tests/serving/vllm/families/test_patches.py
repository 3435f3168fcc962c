"""Which patches and features belong to which image, in forms that differ between models and releases of vLLM."""

# pyright: reportMissingImports=false

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from einops import rearrange
from helpers.served.engine import needs_vllm

pytestmark = needs_vllm
MERGING = SimpleNamespace(vision_config=SimpleNamespace(patch_size=2, spatial_merge_size=2))
#: Two images, of 2 x 1 and of 2 x 2 visual tokens.
GRIDS = torch.tensor([[1, 2, 4], [1, 4, 4]])


@pytest.mark.parametrize(
    ("of_transformers", "pattern"),
    [
        (False, "channel (row y) (column x) -> (row column) (y x channel)"),
        (True, "channel (row i y) (column j x) -> (row column i j) (y x channel)"),
    ],
    ids=["0.32", "0.33"],
)
def test_cosmos_3_edge(of_transformers: bool, pattern: str) -> None:
    """In raster order in vLLM 0.32, which has its own config, and by visual token in 0.33, which uses transformers'."""
    from transformers import Cosmos3EdgeConfig

    from tokenprune.serving.vllm.models.cosmos import PrunedCosmos3Edge

    model: Any = object.__new__(PrunedCosmos3Edge)
    model.config = Cosmos3EdgeConfig(vision_config=vars(MERGING.vision_config)) if of_transformers else MERGING
    image = torch.randn(3, 4, 8)
    patches = rearrange(image, pattern, y=2, x=2, **({"i": 2, "j": 2} if of_transformers else {}))
    (found,) = model.frame_pixels(patches, GRIDS[:1])
    assert torch.equal(found, image)


def test_qwen2_5_omni() -> None:
    """vLLM 0.32 treats images that were encoded elsewhere as images of one visual token each."""
    from tokenprune.serving.vllm.models.qwen_omni import PrunedQwen2_5Omni

    model: Any = object.__new__(PrunedQwen2_5Omni)
    model.config, model.visual = MERGING, SimpleNamespace(dtype=torch.float32, spatial_merge_size=2)
    features = torch.randn(6, 8)
    found = model._process_image_input({"type": "image_embeds", "image_embeds": features, "image_grid_thw": GRIDS})
    assert [len(one) for one in found] == [2, 4]
    assert torch.equal(torch.cat(list(found)), features)


def test_llava_onevision2() -> None:
    """The places of patches are cut among the images of a call as their pixels are."""
    from tokenprune.serving.vllm.models.llava_onevision2 import PrunedLlavaOnevision2

    model: Any = object.__new__(PrunedLlavaOnevision2)
    object.__setattr__(model, "config", MERGING)
    rows = model.rows_of_images({"image_grid_thw": GRIDS})
    assert rows == {"pixel_values": [8, 16], "image_embeds": [2, 4], "patch_positions": [8, 16]}


def test_paddleocr_vl() -> None:
    """One tensor per image in vLLM 0.32, one for all images in 0.33."""
    from tokenprune.serving.vllm.models.paddleocr_vl import PrunedPaddleOCRVL

    model: Any = object.__new__(PrunedPaddleOCRVL)
    patches, grids = torch.randn(16, 3, 14, 14), torch.tensor([[1, 2, 4], [1, 4, 2]])
    apart, together, stacked = (
        {"pixel_values": one, "image_grid_thw": grids}
        for one in (patches.split(8), patches, patches.unflatten(0, (2, 8)))
    )
    assert model.rows_of_images(together) == {"pixel_values": [8, 8]}
    assert model.rows_of_images(apart) == model.rows_of_images(stacked) == {}
    frames = [model.frame_pixels(one["pixel_values"], grids) for one in (apart, together, stacked)]
    assert [frame.shape for frame in frames[0]] == [(3, 28, 56), (3, 56, 28)]
    assert all(torch.equal(a, b) for other in frames[1:] for a, b in zip(frames[0], other, strict=True))
