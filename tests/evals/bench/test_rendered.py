"""The images that the bench draws, and how they are passed to a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.families.qwen_vl import Qwen2_5_VL
from helpers.tiny import tiny_llava
from PIL import Image
from transformers import Qwen2VLImageProcessor

from tokenprune import PixelPrune, SettingError
from tokenprune.evals.bench.inputs import prompts
from tokenprune.evals.bench.inputs.rendered import KINDS, rendered
from tokenprune.tokens import PatchTokens


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_draws_the_same_image_again(kind: str) -> None:
    image = rendered(kind, 420)
    assert image.size == (420, 420)
    assert image.tobytes() == rendered(kind, 420).tobytes()
    assert image.tobytes() != rendered(kind, 420, seed=1).tobytes()


@pytest.mark.parametrize(("kind", "share"), [("page", 0.5), ("table", 0.45), ("screen", 0.25)])
def test_much_of_them_repeats(kind: str, share: float) -> None:
    """Counts the squares of 28 pixels, Qwen2.5-VL's visual tokens, that no neighbour predicts."""
    pixels = torch.from_numpy(np.array(rendered(kind, 1008))).float() / 255
    squares = pixels.view(36, 28, 36, 28, 3).transpose(1, 2).reshape(36**2, -1)
    kept = PixelPrune().select_patches(PatchTokens(squares, (1, 36, 36))).kept
    assert len(kept) / 36**2 == pytest.approx(share, abs=0.07)


def test_patches_are_those_of_the_processor() -> None:
    """That is Qwen2-VL's processor, without resizing and normalised to -1 to 1."""
    config, half = Qwen2_5_VL("qwen2.5-vl").config(), [0.5, 0.5, 0.5]
    vision, image = config.vision_config, rendered("table", 64)
    processor = Qwen2VLImageProcessor(
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        do_resize=False,
        image_mean=half,
        image_std=half,
    )
    expected = processor(images=[image], return_tensors="pt")
    pixels = prompts.pixels_of(config, image, expected["pixel_values"].shape)
    assert expected["image_grid_thw"].tolist() == [[1, 16, 16]]
    torch.testing.assert_close(pixels, expected["pixel_values"], atol=1e-5, rtol=0)


def test_towers_of_one_size_get_it_resized() -> None:
    image = Image.new("RGB", (100, 100), (255, 0, 51))
    pixels = prompts.random_prompt(tiny_llava(), 2, shown=image)["pixel_values"]
    assert pixels.shape == (2, 3, 24, 24)
    torch.testing.assert_close(pixels[1].mean((1, 2)), torch.tensor([1.0, -1.0, -0.6]))


def test_an_unknown_kind() -> None:
    with pytest.raises(SettingError, match=r"unknown kind of image 'pages'\. Did you mean 'page'"):
        rendered("pages", 100)
