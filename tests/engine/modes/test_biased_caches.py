"""Caches keep the attention bias of each row, like its position IDs."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.contract.cells import DEPTH, FIRST_CASE, model_of
from helpers.contract.oracle import as_reported, assert_close, dropped_columns
from helpers.families import FAMILIES
from helpers.families.base import CACHE, IMAGE

import tokenprune
from tokenprune import AveragePooling, SparseVLM
from tokenprune.engine.cache.pruned import index_of
from tokenprune.strategy import MergingStrategy

POOLED = AveragePooling(keep_ratio=0.3, attention_bias="size")
INSIDE = SparseVLM(keep_ratio=0.5, recycle=1.0, clusters=0.2, attention_bias="size")


class Conversation:
    """A prompt and its continuation, which a patched model gets with the cache that it returned."""

    def __init__(self, strategy: MergingStrategy, per_row: list[int]) -> None:
        self.family, n_layers = FAMILIES[FIRST_CASE], DEPTH if isinstance(strategy, SparseVLM) else None
        self.model, self.inputs = model_of(FIRST_CASE, n_layers), FAMILIES[FIRST_CASE].prompt(per_row)
        self.handle = tokenprune.patch(self.model, strategy)
        with torch.no_grad():
            ids = self.family.position_ids(self.model, self.inputs)
            self.cache = self.model(**self.inputs, position_ids=ids, use_cache=True)[CACHE]

    def check(self, cache: Any, rows: list[int]) -> None:
        """Check that text after a cache with these rows of the prompt has the oracle's logits."""
        whole = self.family.continued(
            {name: self.inputs[name][rows] for name in ("input_ids", "attention_mask")},
            torch.randint(2, IMAGE, (len(rows), 3), generator=torch.Generator().manual_seed(3)),
        )
        whole["pixel_values"] = self.inputs["pixel_values"][rows]
        with torch.no_grad():
            new = {"input_ids": whole["input_ids"][:, -3:], "attention_mask": whole["attention_mask"]}
            ids = self.family.position_ids(self.model, whole)
            logits = self.model(**new, position_ids=ids[:, -3:], **{CACHE: cache}).logits
        images = [self.handle.report.images[row] for row in rows]
        report = tokenprune.Report([replace(image, row=row) for row, image in enumerate(images)])
        self.handle.remove()
        with as_reported(self.model, whole["input_ids"], [report], [report]):
            expected = self.family.oracle(self.model, whole, dropped_columns(whole["input_ids"], [report]))
        assert_close(logits, expected[:, -3:])


def selected(cache: Any) -> list[int]:
    cache.batch_select_indices(torch.tensor([1]))
    return [1]


def repeated(cache: Any) -> list[int]:
    cache.batch_repeat_interleave(2)
    return [0, 0, 1, 1]


def reordered(cache: Any) -> list[int]:
    cache.reorder_cache(torch.tensor([1, 0]))
    return [1, 0]


@pytest.mark.parametrize("strategy", [POOLED, INSIDE], ids=["before", "inside"])
@pytest.mark.parametrize("change", [selected, repeated, reordered])
def test_a_cache_keeps_the_bias_of_each_row(strategy: MergingStrategy, change: Any) -> None:
    talk = Conversation(strategy, [1, 1])
    rows = change(talk.cache)
    talk.check(talk.cache, rows)


@pytest.mark.parametrize("strategy", [POOLED, INSIDE], ids=["before", "inside"])
@pytest.mark.parametrize("way", ["copy", "pickle"])
def test_copies_of_a_cache_keep_it(strategy: MergingStrategy, way: str) -> None:
    talk = Conversation(strategy, [1, 1])
    cache = copy.deepcopy(talk.cache) if way == "copy" else pickle.loads(pickle.dumps(talk.cache))
    talk.check(cache, [0, 1])


@pytest.mark.parametrize("strategy", [POOLED, INSIDE], ids=["before", "inside"])
def test_a_cropped_cache_keeps_it(strategy: MergingStrategy) -> None:
    """Also if the end of the prompt is cropped."""
    talk = Conversation(strategy, [1])
    length = talk.inputs["input_ids"].shape[1] - 2
    with torch.no_grad():
        talk.model(input_ids=torch.full((1, 4), 5), **{CACHE: talk.cache})
    talk.cache.crop(length)
    talk.inputs |= {name: talk.inputs[name][:, :length] for name in ("input_ids", "attention_mask")}
    index = index_of(talk.cache)
    assert index is not None
    assert index.bias is not None
    assert index.bias.shape == index.columns.shape
    talk.check(talk.cache, [0])


@pytest.mark.parametrize("biased", [(True, True), (False, True), (True, False)])
def test_another_image_in_a_later_turn(biased: tuple[bool, bool]) -> None:
    """Whether tokens have a bias depends on the strategy of their own turn."""
    family, model = FAMILIES[FIRST_CASE], model_of(FIRST_CASE)
    turns = [family.prompt([1]), family.prompt([1], seed=5)]
    whole = {name: torch.cat([turn[name] for turn in turns], int(name != "pixel_values")) for name in turns[0]}
    ids, cache, reports, n_before = family.position_ids(model, whole), None, [], 0
    out: Any = None
    for turn, with_bias in zip(turns, biased, strict=True):
        n_after = n_before + turn["input_ids"].shape[1]
        given = {**turn, "attention_mask": whole["attention_mask"][:, :n_after]}
        strategy = POOLED if with_bias else AveragePooling(keep_ratio=0.3)
        with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
            out = model(**given, position_ids=ids[:, n_before:n_after], use_cache=True, **{CACHE: cache})
        cache, n_before = out[CACHE], n_after
        reports.append(handle.report)
    with as_reported(model, whole["input_ids"], reports, [r for r, one in zip(reports, biased, strict=True) if one]):
        expected = family.oracle(model, whole, dropped_columns(whole["input_ids"], reports))
    assert_close(out.logits[:, -1], expected[:, -1])
