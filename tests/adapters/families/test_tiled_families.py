"""Families with their own kinds of tiles, crops and features: which tiles make an image, and features that enter
late."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES, VERSION
from helpers.families.llava import drawn
from torch import Tensor

import tokenprune
from tokenprune import FastV, Grid, Random, UnsupportedError
from tokenprune.adapters.families.deepseek_ocr2 import tiles_and_separator
from tokenprune.adapters.families.granite4_vision import to_tokens_pooled
from tokenprune.strategy import ScoreStrategy
from tokenprune.tokens import VisualTokens
from tokenprune.tokens.layout import one_to_one


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize(
    ("name", "tiles"),
    [
        *((name, [3, 1, 3]) for name in ("internvl", "idefics3", "smolvlm", "qianfan-ocr")),
        ("ovis2", [3, 1, 3]),
        ("llama4", [1, 3, 1]),
        ("cohere2-vision", [1, 3, 1]),
        ("granite-docling", [3, 1, 3]),
        ("deepseek-ocr2", [3, 1, 3]),
        ("fuyu", [12, 10, 16]),
    ],
)
def test_tiles_of_one_image(name: str, tiles: list[int], embedded: bool) -> None:
    """Two rows, the second with two images; also if the prompt is given as embeddings."""
    model, inputs = FAMILIES[name].build(), FAMILIES[name].prompt([1, 2])
    if embedded:
        inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids")).detach()
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.5)) as handle:
        model(**inputs)
    assert [image.layout.n_tiles for image in handle.report.images] == tiles
    assert [image.row for image in handle.report.images] == [0, 1, 1]


@pytest.mark.parametrize(
    ("name", "grids"),
    [
        ("inkling2", [((1, 4, 4),), ((1, 6, 4),), ((1, 3, 5),)]),
        ("apertus1p5", [((1, 3, 4),), ((1, 5, 2),), ((1, 4, 4),)]),
        ("emu3", [((1, 3, 5),), ((1, 5, 3),), ((1, 4, 5),)]),  # with a newline token in every row
        ("lighton-ocr", [((1, 3, 4),), ((1, 5, 2),), ((1, 4, 4),)]),
        ("step3p7", [((1, 2, 2), (1, 2, 2), (1, 4, 4)), ((1, 4, 4),), ((1, 2, 2), (1, 2, 2), (1, 4, 4))]),
    ],
)
def test_grids(name: str, grids: list[Any]) -> None:
    """A grid is (rows, columns)."""
    model = FAMILIES[name].build()
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.5)) as handle:
        model(**FAMILIES[name].prompt([1, 2]))
    assert [image.grids for image in handle.report.images] == grids


def test_the_fine_route_of_granite_docling() -> None:
    """It has four times as many visual tokens per tile."""
    family = FAMILIES["granite-docling"]
    model, inputs = family.build(), family.prompt([1])
    fine = [token for token in inputs["input_ids"][0].tolist() for _ in range(4 if token == 90 else 1)]
    ids = torch.tensor([fine])
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids), "tile_fine_mask": torch.tensor([True])}
    with torch.no_grad(), tokenprune.patch(model, Grid(keep_ratio=0.25)) as handle:
        model(**inputs)
    (image,) = handle.report.images
    assert image.grids == ((1, 8, 8),) * 3


def test_ovis2_without_markers() -> None:
    """Without them, nothing shows which tiles belong to one image."""
    model, inputs = FAMILIES["ovis2"].build(), FAMILIES["ovis2"].prompt([1, 2])
    model.config.visual_indicator_token_ids = model.model.visual_indicator_token_ids = []
    with torch.no_grad():
        plain = model(**inputs).logits
        with tokenprune.patch(model, Random(keep_ratio=1.0)) as handle:
            torch.testing.assert_close(model(**inputs).logits, plain)
    assert [image.grids for image in handle.report.images] == [((1, 3, 3),)] * 7


@dataclass(frozen=True)
class Long(ScoreStrategy):
    """Scores a visual token by the length of its feature."""

    def score(self, tokens: VisualTokens) -> Tensor:
        return tokens.features.norm(dim=-1)


def test_features_that_enter_late_are_what_strategies_read() -> None:
    model, inputs = FAMILIES["granite4-vision"].build(), FAMILIES["granite4-vision"].prompt([1])
    with torch.no_grad(), tokenprune.patch(model, Long(keep_ratio=0.5)) as handle:
        model(**inputs)
    (image,) = handle.report.images
    output = model.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"], return_dict=True)
    by_layer = {layer: features for layer, (features,) in output.deepstack_features}
    assert len(by_layer) == 2
    expected = torch.stack(list(by_layer.values())).sum(0).norm(dim=-1)
    assert image.scores is not None
    torch.testing.assert_close(image.scores, expected.detach())


def test_stages_before_features_have_entered_are_refused() -> None:
    family: Any = FAMILIES["granite4-vision"]
    model = family.build(n_layers=4)
    model.config.spatial_target_layers = [0, 1, 2, 3]
    with pytest.raises(UnsupportedError, match=r"before decoder layer 2, and .* adds features to them up to layer 3"):
        tokenprune.patch(model, FastV(layer=2, keep_ratio=0.5))
    with tokenprune.patch(model, FastV(layer=3, keep_ratio=0.5)):
        pass


def test_downsampling_by_three_eighths() -> None:
    """There are as many visual tokens as queries in the windows, and no token belongs to two windows."""
    windows = torch.arange(24) // 8
    values = (windows[:, None] * 3 + windows).flatten()[None].float()
    carried = to_tokens_pooled(values, one_to_one, 9)
    expected = torch.arange(9) // 3
    assert torch.equal(carried.view(9, 9), (expected[:, None] * 3 + expected).float())


@pytest.mark.skipif(VERSION < (5, 24), reason="older transformers cannot generate images with Janus, patched or not")
def test_janus_draws_as_without_a_patch() -> None:
    model, ids = FAMILIES["janus"].build(), torch.tensor([[1, 5, 6, 93]])
    model.generation_config.guidance_scale = 2
    plain = drawn(model, ids)
    assert len(plain.unique()) > 1
    with tokenprune.patch(model, Random(keep_ratio=0.5)):
        assert torch.equal(drawn(model, ids), plain)


def test_tiles_and_separator_by_hand() -> None:
    layout = tiles_and_separator(2, 3, 4)
    assert layout.grids == ((1, 1, 3), (1, 1, 3), (1, 1, 4), (1, 1, 1))
    assert layout.tiles is not None
    assert layout.newlines is not None
    assert layout.tiles.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
    assert layout.newlines.nonzero()[:, 0].tolist() == [10]
