"""Families that merge squares of patches into visual tokens, and cut images into tiles: which tiles make an image."""

from copy import deepcopy
from functools import cache
from inspect import signature
from math import isqrt
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.families.base import ENCODES_FIRST, IMAGE, PATCH
from helpers.families.idefics import MARKER, OVERVIEW, PER_TILE, TILE
from torch import Tensor, nn

import tokenprune
from tokenprune import FoPru, Grid, PruningError, Random, Report
from tokenprune.tokens import Layout, VisualTokens

SQUARE = ["internvl", "idefics3", "smolvlm"]


@cache
def model_of(name: str, attention: str = "sdpa") -> Any:
    return FAMILIES[name].build(attention)


def report_of(name: str, inputs: dict[str, Any], strategy: tokenprune.Strategy) -> Report:
    model = model_of(name)
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        model(**inputs)
    return handle.report


@pytest.mark.parametrize("size", [(24, 32), (40, 16), (28, 36)])  # the last has one row and one column too many
def test_images_are_carried_as_the_patch_merger_takes_them(size: tuple[int, int]) -> None:
    image = report_of("mistral3", FAMILIES["mistral3"].prompt([1], sizes=[size]), Grid()).images[0]
    assert image.grids == ((1, size[0] // (2 * PATCH), size[1] // (2 * PATCH)),)
    values = torch.rand(size[0] // PATCH * (size[1] // PATCH))
    merger = deepcopy(model_of("mistral3").model.multi_modal_projector.patch_merger)
    merger.merging_layer = nn.Identity()
    expected = merger(values[:, None], torch.tensor([size])).mean(-1)
    torch.testing.assert_close(image.layout.to_tokens(values[None]), expected)


def test_a_scale_of_three() -> None:
    values = torch.rand(1, 81)
    expected = model_of("idefics3").model.connector.pixel_shuffle(values[..., None], 3).mean(-1).flatten()
    torch.testing.assert_close(Layout.squares(9, 9, 3).to_tokens(values), expected)


def test_normalised_queries_and_keys() -> None:
    """InternVL's larger tower normalises queries and keys before it multiplies them."""
    family = FAMILIES["internvl"]
    scores = []
    for attention in ("sdpa", "eager"):
        config = family.config()
        config.vision_config.use_qk_norm = True
        config._attn_implementation = attention
        kind = type(model_of("internvl"))  # building it draws random numbers too
        torch.manual_seed(0)
        model: Any = kind(config).eval()
        inputs = family.prompt([1])
        if attention == "sdpa":
            with torch.no_grad(), tokenprune.patch(model, FoPru(score="cls")) as handle:
                model(**inputs)
            scores.append(handle.report.images[0].scores)
        else:
            with torch.no_grad():
                maps = model.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions[-1]
            scores.append(Layout.concat([Layout.squares(6, 6, 2)] * len(maps)).to_tokens(maps.mean(1)[:, 0, 1:]))
    torch.testing.assert_close(*scores)


@pytest.mark.parametrize("name", SQUARE)
def test_pixels_are_the_images_tiles(name: str) -> None:
    """Random is seeded with the pixels, so an image keeps the same tokens alone and among others."""
    inputs = FAMILIES[name].prompt([1, 2])
    together = report_of(name, inputs, Random(keep=3)).images
    for row, per_row in enumerate([1, 2]):
        alone = report_of(name, FAMILIES[name].rows(inputs, [row], [1, 2]), Random(keep=3)).images
        assert len(alone) == per_row
        expected = [image.kept.tolist() for image in together if image.row == row]
        assert [image.kept.tolist() for image in alone] == expected
    assert len({tuple(image.kept.tolist()) for image in together}) > 1


def test_what_fills_up_a_batch_is_no_part_of_an_image() -> None:
    small = FAMILIES["mistral3"].prompt([1, 1], sizes=[(24, 32), (24, 32)])
    large = FAMILIES["mistral3"].prompt([1, 1], sizes=[(24, 32), (56, 48)])
    large["pixel_values"][:1, :, :24, :32] = small["pixel_values"][:1]
    kept = [report_of("mistral3", inputs, Random(keep=3)).images[0].kept for inputs in (small, large)]
    assert torch.equal(*kept)


@pytest.mark.parametrize("name", SQUARE)
def test_budgets_per_tile_add_up_to_the_images(name: str) -> None:
    images = report_of(name, FAMILIES[name].prompt([1, 2]), FoPru(keep=7, budget_per="tile")).images
    assert [image.n_kept for image in images] == [7, 7, 7]
    tiles, side = images[0].layout.tiles, isqrt(images[0].n_visual // 3)
    assert images[0].grids == ((1, side, side),) * 3
    assert tiles.tolist() == [tile for tile in range(3) for _ in range(side * side)]
    assert tiles[images[0].kept].bincount().tolist() == [2, 2, 3]
    assert images[0].scores is not None


# Which tiles make an image.


def idefics_prompt(*tokens: int | Tensor) -> dict[str, Any]:
    """Return a prompt of one row of text, in which each tensor is a tile."""
    pixels = torch.stack([token for token in tokens if isinstance(token, Tensor)])
    ids = [i for token in tokens for i in ([IMAGE] * PER_TILE if isinstance(token, Tensor) else [token])]
    return {"input_ids": torch.tensor([ids]), "pixel_values": pixels[None]}


def tiles_of(report: Report) -> list[int]:
    return [len(image.grids) for image in report.images]


def test_runs_of_placeholders_are_internvl_images() -> None:
    family = FAMILIES["internvl"]
    inputs = family.prompt([2, 1])
    assert tiles_of(report_of("internvl", inputs, Grid())) == [3, 1, 3]
    video = torch.tensor([[5, *([IMAGE] * 9 + [6]) * 4]])  # frames have text between them
    pixels = torch.randn(4, 3, 24, 24)
    assert tiles_of(report_of("internvl", {"input_ids": video, "pixel_values": pixels}, Grid())) == [1, 1, 1, 1]


def test_an_overview_ends_an_idefics_image() -> None:
    a, b, c, d, e = torch.randn(5, 3, TILE, TILE)
    cut = (MARKER, 11, a, MARKER, 12, b, 7, 7, MARKER, OVERVIEW, c, MARKER)
    whole = (MARKER, OVERVIEW, d, MARKER)
    frames = (MARKER, OVERVIEW, d, MARKER, 8, 9, MARKER, OVERVIEW, e, MARKER)
    assert tiles_of(report_of("smolvlm", idefics_prompt(5, *cut, 6), Grid())) == [3]
    assert tiles_of(report_of("smolvlm", idefics_prompt(5, *cut, *whole), Grid())) == [3, 1]
    assert tiles_of(report_of("smolvlm", idefics_prompt(5, *whole, 6, *cut, 6), Grid())) == [1, 3]
    assert tiles_of(report_of("smolvlm", idefics_prompt(5, *frames), Grid())) == [1, 1]


def test_headers_may_be_many_tokens() -> None:
    """Idefics3's tokenizer has no tokens of their own for headers: all end with the same token."""
    a, b, c, d = torch.randn(4, 3, TILE, TILE)
    cut = (MARKER, 60, 11, 61, a, MARKER, 60, 12, 61, b, 7, MARKER, 60, 70, 61, c)
    whole = (MARKER, 60, 70, 61, d, MARKER)
    assert tiles_of(report_of("idefics3", idefics_prompt(5, *cut, *whole), Grid())) == [3, 1]


@pytest.mark.parametrize("name", SQUARE)
def test_beams_look_at_an_image_once(name: str) -> None:
    looks = []

    class Counting(Grid):
        def select(self, tokens: VisualTokens) -> tokenprune.Selection:
            looks.append(tokens.n_visual)
            return super().select(tokens)

    model, inputs = model_of(name), FAMILIES[name].prompt([1, 1], texts=[3, 3])
    with torch.no_grad(), tokenprune.patch(model, Counting()) as handle:
        model.generate(**inputs, num_beams=3, do_sample=False, max_new_tokens=2)
    assert [image.row for image in handle.report.images] == [*range(6)]
    whole, one = handle.report.images[0].n_visual, handle.report.images[-1].n_visual
    assert whole == 3 * one
    assert looks == ([whole, one] if ENCODES_FIRST else [whole] * 3 + [one] * 3)


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_bare_features_are_refused(name: str) -> None:
    model, inputs = model_of(name), FAMILIES[name].prompt([1])
    old = "image_hidden_states"  # the argument's name up to 5.1x
    argument = old if old in signature(type(model).forward).parameters else "mm_encoder_outputs"
    with (
        tokenprune.patch(model, Grid()),
        pytest.raises(PruningError, match=r"bare features say nothing.*Pass pixel_values"),
    ):
        model(input_ids=inputs["input_ids"], **{argument: torch.zeros(3, PER_TILE, 32)})
