"""Muse Glimmer's images and videos: one by one in vLLM 0.32, as the patches of all in 0.33."""

# pyright: reportMissingImports=false

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from einops import rearrange
from helpers.served.engine import needs_vllm
from torch import Tensor

pytestmark = needs_vllm
SIDE = 2


PATCHES = "channel (row y) (column x) -> (row column) (channel y x)"


def patches_of(image: Tensor) -> Tensor:
    """Return the patches of an image, each of which covers two frames."""
    return rearrange(image, PATCHES, y=SIDE, x=SIDE).repeat(1, 2)


def model(**vision: Any) -> Any:
    from tokenprune.serving.vllm.models.muse import PrunedMuseGlimmer

    model: Any = object.__new__(PrunedMuseGlimmer)
    kinds = ["window_attention", "full_attention"]
    shape = SimpleNamespace(patch_size=SIDE, patch_temporal=2, pos_emb_height=2, layer_types=kinds, **vision)
    model.__dict__["config"] = SimpleNamespace(model_type="muse_glimmer", vision_config=shape)
    model.__dict__["settings"] = SimpleNamespace(strategy=SimpleNamespace(needs=frozenset({"pixels"})))
    model.__dict__["capture"] = None
    return model


def test_images_and_patches() -> None:
    images = [torch.randn(3, 4, 8), torch.randn(3, 8, 4)]
    grids = torch.tensor([[1, 2, 4], [1, 4, 2]])
    older, newer = model(merge_kernel_size=2), model(merge_size=2)
    rows = torch.cat([patches_of(image) for image in images])
    apart: dict[str, Any] = {"image_pixel_values": images}
    together = {"pixel_values": rows, "image_grid_thw": grids}
    assert torch.equal(older.grids(apart), grids)
    assert newer.rows_of_images(together) == {"pixel_values": [8, 8]}
    for one, arguments in ((older, apart), (newer, together)):
        encoded = one.encoded_images(arguments, [])
        assert [image.layout.n_visual for image in encoded] == [2, 2]
        for image, pixels in zip(encoded, images, strict=True):
            assert torch.allclose(image.statistics["pixels"][0], pixels)


def test_pairs_of_frames() -> None:
    pairs = torch.randn(3, 6, 4, 8)
    rows = torch.cat([rearrange(pair, PATCHES, y=SIDE, x=SIDE) for pair in pairs])
    grids = torch.tensor([[3, 2, 4]])
    older, newer = model(merge_kernel_size=2), model(merge_size=2)
    apart: dict[str, Any] = {"video_pixel_values": [pairs]}
    together = {"pixel_values_videos": rows, "video_grid_thw": grids}
    assert torch.equal(older.grids(apart), grids)
    assert newer.rows_of_images(together) == {"pixel_values_videos": [24]}
    means = pairs.unflatten(1, (2, 3)).mean(1)
    for one, arguments in ((older, apart), (newer, together)):
        encoded = one.encoded_images(arguments, [])
        assert [image.layout.n_visual for image in encoded] == [2, 2, 2]
        for image, pixels in zip(encoded, means, strict=True):
            assert torch.allclose(image.statistics["pixels"][0], pixels)


def test_patches_of_windows_come_in_raster_order() -> None:
    """In a tower with windows, the patches of each window of 2 x 2 are consecutive."""
    grids = torch.tensor([[1, 2, 4], [1, 2, 2]])
    states = torch.tensor([0.0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 10, 11])[None, :, None]
    first, second = model(merge_size=2).by_frame(states, grids)
    assert first[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert second[0, :, 0].tolist() == [8, 9, 10, 11]
