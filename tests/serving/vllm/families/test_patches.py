"""Which patches and features belong to which image, in forms that differ between models and releases of vLLM."""

# pyright: reportMissingImports=false

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from einops import rearrange
from helpers.served.engine import needs_vllm
from torch import Tensor

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


#: Muse Glimmer's images and videos come one by one in vLLM 0.32, as the patches of all in 0.33.
SIDE = 2
PATCHES = "channel (row y) (column x) -> (row column) (channel y x)"


def patches_of(image: Tensor) -> Tensor:
    """Return the patches of an image, each of which covers two frames."""
    return rearrange(image, PATCHES, y=SIDE, x=SIDE).repeat(1, 2)


def muse(**vision: Any) -> Any:
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
    older, newer = muse(merge_kernel_size=2), muse(merge_size=2)
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
    older, newer = muse(merge_kernel_size=2), muse(merge_size=2)
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
    first, second = muse(merge_size=2).by_frame(states, grids)
    assert first[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert second[0, :, 0].tolist() == [8, 9, 10, 11]
