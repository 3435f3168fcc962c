"""Towers with queries that read the patches and become the visual tokens: Idefics2, Aria and DeepSeek-OCR 2."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from helpers.contract.shown import shown
from helpers.families import FAMILIES, present
from torch import Tensor

import tokenprune
from tokenprune import FoPru
from tokenprune.adapters import adapter_for
from tokenprune.tokens import VisualTokens

NAMES = present("idefics2", "aria", "deepseek-ocr2")


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build("eager")


def looked_at(name: str, layer: int | None) -> list[VisualTokens]:
    return shown(model_of(name), FAMILIES[name].prompt([1, 2]), layer)


def weights_of(name: str, module: Any) -> list[Tensor]:
    """Return the weights (tiles, heads, queries, keys) from every call of an attention module."""
    found: list[Tensor] = []
    hook = module.register_forward_hook(lambda module, args, output: found.append(output[1]))
    with torch.no_grad():
        model_of(name)(**FAMILIES[name].prompt([1, 2]))
    hook.remove()
    return found


def reader_of(name: str) -> Any:
    core = model_of(name).model
    if name == "idefics2":
        return core.connector.perceiver_resampler.layers[-1].self_attn
    return core.vision_tower.vision_encoder.layers[-1].self_attn


def in_order(name: str, calls: list[Tensor]) -> list[Tensor]:
    """Return the tiles in the order of images. DeepSeek-OCR 2 gets three whole images first, and then two crops of the
    first image and two of the last."""
    tiles = [tile for call in calls for tile in call]
    return [tiles[i] for i in (3, 4, 0, 1, 5, 6, 2)] if name == "deepseek-ocr2" else tiles


def n_real(name: str, number: int) -> Tensor:
    """Return which patches of a tile are real: Idefics2 and Aria pad images that are not square."""
    if name == "deepseek-ocr2":
        return torch.ones(16 if number in (2, 3, 6) else 4, dtype=torch.bool)
    inputs = FAMILIES[name].prompt([1, 2])
    masks = inputs["pixel_mask"] if name == "aria" else inputs["pixel_attention_mask"].flatten(0, 1)
    real = masks[masks.flatten(1).any(1)][number]
    return (real.unfold(0, 4, 4).unfold(1, 4, 4).flatten(2).sum(-1) > 0).flatten()


@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize("name", NAMES)
def test_attention_is_that_of_the_patches(name: str, layer: int) -> None:
    (point,) = adapter_for(model_of(name)).capture_points(layer)
    maps = in_order(name, weights_of(name, point.attention))
    sums = [tile for image in looked_at(name, layer) for tile in image.vision_attention.column_sums()]
    assert len(sums) == len(maps)
    for number, (found, weights) in enumerate(zip(sums, maps, strict=True)):
        real = n_real(name, number)
        among = weights[:, : len(real), : len(real)].mean(0)
        right = (among * real[:, None]).sum(0)
        torch.testing.assert_close(in_corner(found, len(real)), right, atol=1e-5, rtol=1e-4)
        assert right.std() > 1e-3  # far from uniform
        torch.testing.assert_close(found.sum(), right.sum())  # nothing outside the corner


def in_corner(values: Tensor, n_patches: int) -> Tensor:
    side, own = round(values.shape[-1] ** 0.5), round(n_patches**0.5)
    return values.unflatten(-1, (side, side))[..., :own, :own].flatten(-2)


@pytest.mark.parametrize("name", ["idefics2", "deepseek-ocr2"])
def test_shares_are_what_the_last_layer_reads(name: str) -> None:
    """They are the queries' weights on patches, as shares of their sum in each head."""
    maps = in_order(name, weights_of(name, reader_of(name)))
    found = [tile for image in looked_at(name, 0) for tile in shares_of(image)]
    assert len(found) == len(maps)
    for number, (shares, weights) in enumerate(zip(found, maps, strict=True)):
        n_patches = len(n_real(name, number))
        queries = weights if name == "idefics2" else weights[:, n_patches:]
        on_patches = queries[..., :n_patches]
        right = (on_patches / on_patches.sum(-1, keepdim=True)).mean(0)
        torch.testing.assert_close(in_corner(shares[: len(right)], n_patches), right, atol=1e-5, rtol=1e-4)
        assert right.std(0).max() > 1e-3  # queries read differently


def shares_of(image: VisualTokens) -> Tensor:
    shares = image.vision_attention.shares
    assert shares is not None
    return shares


def test_shares_of_aria_are_its_cross_attention() -> None:
    """torch can return its weights, averaged over heads."""
    model = model_of("aria")
    attention, found = model.model.multi_modal_projector.cross_attn.multihead_attn, []

    def ask(module: Any, args: Any, kwargs: Any) -> Any:
        found.append(type(attention).forward(attention, *args, **{**kwargs, "need_weights": True})[1])

    hook = attention.register_forward_pre_hook(ask, with_kwargs=True)
    with torch.no_grad():
        model(**FAMILIES["aria"].prompt([1, 2]))
    hook.remove()
    shares = torch.cat([shares_of(image) for image in looked_at("aria", 0)])
    torch.testing.assert_close(shares, found[0])
    assert shares.std(1).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_visual_token_gets_the_mean_of_what_it_reads(name: str) -> None:
    model, sums = model_of(name), [image.vision_attention.column_sums() for image in looked_at(name, 0)]
    with torch.no_grad(), tokenprune.patch(model, FoPru(layer=0, keep_ratio=0.5)) as handle:
        model(**FAMILIES[name].prompt([1, 2]))
    images = looked_at(name, 0)
    for image, values, reported in zip(images, sums, handle.report.images, strict=True):
        tiles = [(shares @ one)[shares.sum(-1) > 0] for shares, one in zip(shares_of(image), values, strict=True)]
        expected = torch.cat(tiles)
        if name == "deepseek-ocr2":
            expected = torch.cat([expected, expected.max()[None]])  # the separator
        assert reported.scores is not None
        torch.testing.assert_close(reported.scores, expected)


READS: dict[str, Callable[[Any], Any]] = {
    "idefics2": lambda core: core.connector.perceiver_resampler.layers[-1].self_attn.k_proj,
    "aria": lambda core: core.multi_modal_projector.cross_attn.k_proj,
    "deepseek-ocr2": lambda core: core.vision_tower.vision_encoder.layers[-1].self_attn.k_proj,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_resampler_that_was_exchanged_is_refused(name: str) -> None:
    """The hooks would be on modules that no longer run."""
    family = FAMILIES[name]
    model = family.build()
    with tokenprune.patch(model, FoPru(keep_ratio=0.5)):
        old = READS[name](model.model)
        parent = next(module for module in model.modules() if old in module._modules.values())
        parent.k_proj = torch.nn.Linear(old.in_features, old.out_features, bias=old.bias is not None)
        with pytest.raises(tokenprune.PruningError, match=r"replaced after patch"):
            model(**family.prompt([1]))
