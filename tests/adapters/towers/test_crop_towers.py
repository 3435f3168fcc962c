"""Towers that see the crops of an image separately from the whole, or all images in one row: Step 3.7, Unlimited-OCR,
Inkling 2 and PerceptionLM."""

from functools import cache
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.families.base import VIDEO
from torch import Tensor

import tokenprune
from tokenprune import FoPru, GenericAdapter, PruningError, Random
from tokenprune.adapters import adapter_for
from tokenprune.adapters.families.unlimited_ocr import canvas_and_whole
from tokenprune.adapters.layouts.crops import corner, image_by_image
from tokenprune.strategies.shared.importance import importance_map
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Layout

#: For each tile, in the order of images, its (call, tile): the tower gets all whole images first, and then all crops.
ORDER = [(1, 0), (1, 1), (0, 0), (0, 1), (1, 2), (1, 3), (0, 2)]


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build("eager")


def reported(name: str, strategy: tokenprune.Strategy) -> list[tokenprune.ImageReport]:
    with torch.no_grad(), tokenprune.patch(model_of(name), strategy) as handle:
        model_of(name)(**FAMILIES[name].prompt([1, 2]))
    return handle.report.images


def eager_maps(name: str, layer: int) -> list[Tensor]:
    """Return the attention (heads, tokens, tokens) of every tile in the order of images, from the attention module."""
    (point,), calls = adapter_for(model_of(name)).capture_points(layer), []
    hook = point.attention.register_forward_hook(lambda module, args, output: calls.append(output[1]))
    with torch.no_grad():
        model_of(name)(**FAMILIES[name].prompt([1, 2]))
    hook.remove()
    return [calls[call][tile] for call, tile in ORDER]


@pytest.mark.parametrize("layer", [0, -1])
def test_attention_is_that_of_the_eager_map(layer: int) -> None:
    received = [weights.mean(0).sum(0) for weights in eager_maps("step3p7", layer)]
    for image in reported("step3p7", FoPru(layer=layer, score="column", keep_ratio=0.5)):
        own, received = received[: image.layout.n_tiles], received[image.layout.n_tiles :]
        side = max(one.numel() for one in own) ** 0.5
        same = [placed(one, round(side)) for one in own] if len(own) > 1 else own
        assert image.scores is not None
        torch.testing.assert_close(image.scores, image.layout.to_tokens(torch.stack(same)), atol=1e-5, rtol=1e-5)
        assert all(one.std() > 0.03 for one in own)  # far from uniform
    assert not received


def placed(values: Tensor, side: int) -> Tensor:
    """Put values in the corner of a larger raster, and numbers that must be ignored around them."""
    own = round(values.numel() ** 0.5)
    raster = torch.full((side, side), 1e3)
    raster[:own, :own] = values.view(own, own)
    return raster.flatten()


def test_a_visual_token_of_step_3_7_is_given_its_own_square() -> None:
    """The convolutions overlap, but the patches of its own square change a token most."""
    tower = model_of("step3p7").model.vision_model
    (image, *_) = reported("step3p7", Random(keep_ratio=0.5))
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = tower(pixels).last_hidden_state
        for patch in (0, 5 * 16 + 6, 255):

            def disturb(module: Any, args: Any, states: Tensor, patch: int = patch) -> Tensor:
                changed = states.clone()
                changed[:, patch] += torch.linspace(-3, 3, states.shape[-1]) ** 3
                return changed

            hook = tower.layers[-1].register_forward_hook(disturb)
            change = (tower(pixels).last_hidden_state - before).abs().sum(-1)[0]
            hook.remove()
            values = torch.zeros(3, 256)
            values[-1, patch] = 1.0
            (token,) = image.layout.to_tokens(values)[-16:].nonzero()[:, 0].tolist()
            assert change[token] > 0.5 * change.max()


def test_crops_are_put_into_the_corner() -> None:
    """By hand: a crop of 2 x 2 patches and a whole image of 3 x 3, each after a CLS token."""
    image = Layout(((1, 2, 2), (1, 3, 3)), 2)
    whole = (torch.full((1, 10, 1), 7.0), torch.full((1, 10, 1), 8.0))
    crop = (torch.arange(5.0).view(1, 5, 1), torch.arange(5.0, 10.0).view(1, 5, 1))
    (queries, keys, real), second = image_by_image("vision_attention", [whole, crop], [image], 1)
    assert queries.flatten().tolist() == [0, 1, 2, 0, 3, 4, 0, 0, 0, 0]
    assert keys.flatten().tolist() == [5, 6, 7, 0, 8, 9, 0, 0, 0, 0]
    assert real.tolist() == [True, True, True, False, True, True, False, False, False, False]
    assert second[2].all()
    assert corner(queries[:, 1:, 0], 2).flatten().tolist() == [1, 2, 3, 4]
    (small, large) = image_by_image("colors", [torch.ones(3, 6, 6), torch.ones(3, 4, 4)], [image])
    assert small.shape == large.shape
    assert small.sum() == 48
    (small, large) = image_by_image("pixels", [torch.ones(3, 6, 6), torch.ones(3, 4, 4)], [image])
    assert small.sum() == large.sum()


def test_a_canvas_carries_its_crops_by_hand() -> None:
    """Two crops of one visual token side by side, and the whole image with 2 x 2."""
    layout = canvas_and_whole(1, 2, 1, 2)
    values = torch.tensor([[5.0, 99, 99, 99], [6.0, 99, 99, 99], [1.0, 2, 3, 4]])
    assert layout.to_tokens(values).tolist() == [5, 6, 6, 1, 2, 2, 3, 4, 4, 6]


# PerceptionLM's videos, which are encoded by the function for images.


def with_video(image: bool) -> dict[str, Any]:
    """Two videos of three frames, and an image of three tiles before the first."""
    before = [90] * 27 if image else []
    ids = torch.tensor([[5, *before, 6, *[VIDEO] * 27, 7, 8, *[VIDEO] * 27, 9]])
    videos = torch.randn(2, 3, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    pixels = {"pixel_values": videos[:1].flip(1) + 1.0} if image else {}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": videos, **pixels}


@pytest.mark.parametrize("image", [False, True])
def test_videos_and_images_of_perception_lm(image: bool) -> None:
    model, inputs = model_of("perception-lm"), with_video(image)
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.3)) as handle:
        answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    images = handle.report.images
    expected = [("image", ((1, 3, 3),) * 3)] * image + [("video", ((3, 3, 3),))] * 2
    assert sorted((one.modality, one.grids) for one in images) == expected
    assert [one.n_kept for one in images] == [8] * len(images)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 3


def test_videos_of_which_nothing_is_known() -> None:
    """The generic adapter knows no function for videos here."""
    family, inputs = FAMILIES["perception-lm"], with_video(False)
    model, settings = family.build(), {"max_new_tokens": 2, "do_sample": False}
    plain = model.generate(**inputs, **settings)
    with tokenprune.patch(model, Random(keep_ratio=0.5), adapter=GenericAdapter):
        with pytest.raises(PruningError, match="got pixel_values_videos, and GenericAdapter does not know"):
            model(**inputs)
        with pytest.raises(PruningError, match="got pixel_values_videos, and GenericAdapter does not know"):
            model.generate(**inputs, **settings)
    assert torch.equal(model.generate(**inputs, **settings), plain)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_importance_of_a_crop_is_what_it_is_alone(alpha: float) -> None:
    """The padding of its raster counts neither as attention nor as colour."""
    generator = torch.Generator().manual_seed(3)
    crop, whole = ([torch.randn(2, n, 4, generator=generator) for _ in range(2)] for n in (4, 9))
    colors = [torch.rand(3, side, side, generator=generator) for side in (8, 12)]
    image = Layout(((1, 2, 2), (1, 3, 3)), 2)
    tiles = image_by_image("vision_attention", [tuple(whole), tuple(crop)], [image])
    queries, keys, real = (torch.stack(part) for part in zip(*tiles, strict=True))
    both = VisionAttention(queries, keys, 0.5, 0, image, real)
    seen = torch.stack(image_by_image("colors", colors[::-1], [image]))
    alone = VisionAttention(crop[0][None], crop[1][None], 0.5, 0, Layout.raster((1, 2, 2)))
    found = importance_map(both, 0.9, alpha, seen)
    expected = importance_map(alone, 0.9, alpha, colors[0][None])
    torch.testing.assert_close(corner(found[None, :9], 2).flatten(), expected)
