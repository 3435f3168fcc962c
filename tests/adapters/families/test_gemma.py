"""Peculiarities of the Gemma families: which patches a visual token is made of, and position IDs that begin at 1."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close
from helpers.families import FAMILIES

import tokenprune
from tokenprune import FoPru, PruningError, Random
from tokenprune.adapters.families.gemma4 import sizes_of


def test_a_visual_token_of_gemma_3_gets_the_mean_of_its_patches() -> None:
    family = FAMILIES["gemma3"]
    model, inputs = family.build(), family.prompt([1])
    seen: dict[str, Any] = {}
    pool = model.model.multi_modal_projector.avg_pool
    tower = model.model.vision_tower
    attention = getattr(tower, "vision_model", tower).encoder.layers[-1].self_attn  # deeper in older transformers
    attention.register_forward_hook(lambda module, args, output: seen.update(attention=output[1]))
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep=4)) as handle:
        model(**inputs)
    with torch.no_grad():  # eager attention returns its map
        tower.config._attn_implementation = "eager"
        model(**inputs)
    received = seen["attention"].mean(1).sum(1)
    scores = handle.report.images[0].scores
    assert scores is not None
    assert_close(scores, pool(received.view(1, 6, 6)).flatten())


def test_position_ids_of_paligemma_begin_at_1() -> None:
    family = FAMILIES["paligemma"]
    model, inputs = family.build(), family.prompt([1])
    n_text = 3
    cases: Any = ("original", None), ("compact", list(range(n_text + 1, n_text + 5)))
    with torch.no_grad():
        for position_ids, ids in cases:
            with tokenprune.patch(model, Random(keep=4), position_ids=position_ids) as handle:
                model(**inputs)
            image = handle.report.images[0]
            assert image.position_ids.tolist() == (ids or (image.kept + n_text + 1).tolist())


def test_tiles_whose_places_do_not_begin_at_zero() -> None:
    rectangle = torch.cartesian_prod(torch.arange(1, 3), torch.arange(2, 5)).flip(1)  # (column, row): 2 rows, 3 columns
    padding = torch.full((2, 2), -1)
    assert sizes_of(torch.stack([torch.cat([rectangle, padding])])) == [(2, 3)]
    assert sizes_of(torch.tensor([[[1, 1]]])) == [(1, 1)]


def test_patches_of_gemma_4_that_fill_no_squares() -> None:
    """Its processor makes no such images. In rows of 5 patches, transformers would join the last one with the first of
    the next row; for 5 rows it raises an error of its own."""
    family = FAMILIES["gemma4"]
    model, inputs = family.build(), family.prompt([1], sizes=[(16, 20)])
    with tokenprune.patch(model, Random(keep_ratio=0.5)):
        with pytest.raises(PruningError, match=r"4 x 5 patches does not divide into squares of 2 x 2"):
            model(**inputs)
        assert model(**family.prompt([1])).logits is not None
