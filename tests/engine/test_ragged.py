"""Rows of a batch that keep different numbers of visual tokens: holes in the packed sequence and in the cache."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from engine.cache.test_chat import Chat
from helpers.contract.modes import MODES
from helpers.contract.oracle import as_reported, assert_close, dropped_columns
from helpers.families import FAMILIES
from helpers.tiny import CACHE, IMAGE, PAD, prompt
from transformers import StaticCache

import tokenprune
from tokenprune import FastV, FoPru, Selection, Strategy
from tokenprune.sequence.packing import pack
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class Varied(Strategy):
    """Keeps the tokens with the longest features, in a number that depends on the image."""

    keep_ratio: float | None = 1.0

    def select(self, tokens: VisualTokens) -> Selection:
        order = tokens.features.norm(dim=-1).argsort(descending=True)
        return Selection.first(order, min(6 + 11 * tokens.image, tokens.n_visual - 1))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: str, attention: str) -> None:
    family, per_row = FAMILIES["llava-clip"], [1, 1]
    model = family.build(attention)
    inputs = prompt(per_row, texts=[4, 4], seed=5)  # no padding: all holes come from pruning
    with torch.no_grad(), tokenprune.patch(model, Varied()) as handle:
        run = MODES[mode](family, model, inputs, per_row)
    assert len({image.n_kept for image in handle.report.images}) > 1
    dropped = dropped_columns(run.whole(family)["input_ids"], [handle.report])
    assert_close(run.logits, run.expected(family, model, dropped))


@pytest.mark.parametrize("position_ids", ["original", "compact"])
def test_a_conversation(llava: Any, position_ids: Any) -> None:
    chat = Chat(llava, position_ids)
    with torch.no_grad(), tokenprune.patch(llava, Varied(), position_ids=position_ids) as handle:
        for seed, n_images in enumerate([1, 0, 1, 0], start=5):
            chat.turn(prompt([n_images] * 2, texts=[4, 4], seed=seed), handle)
    assert all(len({image.n_kept for image in report.images}) > 1 for report in chat.reports)


def test_holes_of_an_earlier_turn_where_no_mask_comes(llava: Any) -> None:
    """In the second turn, all rows keep the same number."""
    first, second = (prompt([1, 1], texts=[4, 4], seed=seed) for seed in (5, 7))
    mask = torch.ones(2, 2 * first["input_ids"].shape[1]).long()
    with torch.no_grad():
        with tokenprune.patch(llava, Varied()):
            cache = llava(**first, use_cache=True)[CACHE]
        with tokenprune.patch(llava, FoPru(keep_ratio=0.25)):
            expected = llava(**{**second, "attention_mask": mask}, **{CACHE: copy.deepcopy(cache)}).logits
            assert_close(llava(**{**second, "attention_mask": None}, **{CACHE: cache}).logits, expected)


def test_a_static_conversation(llava: Any) -> None:
    """A static cache can be reused while it has room."""
    arguments: dict[str, Any] = {CACHE: StaticCache(config=llava.config.get_text_config(), max_cache_len=256)}
    chat = Chat(llava, **arguments)
    with torch.no_grad(), tokenprune.patch(llava, Varied()) as handle:
        chat.turn(prompt([1, 1], seed=5), handle)
        chat.settings = {}
        chat.turn(prompt([0, 0], seed=6), handle)
        chat.turn(prompt([1, 1], seed=7), handle)
    assert chat.cache is arguments[CACHE]


@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize(
    ("method", "argument", "rows"),
    [
        ("reorder_cache", torch.tensor([1, 0]), [1, 0]),
        ("batch_select_indices", torch.tensor([1]), [1]),
        ("batch_repeat_interleave", 2, [0, 0, 1, 1]),
    ],
)
def test_rows_move_with_the_cache(llava: Any, method: str, argument: Any, rows: list[int], position_ids: Any) -> None:
    """Beam search and contrastive search move cache rows; holes and position IDs must move along."""
    inputs = prompt([1, 1], texts=[4, 4], seed=5)
    length = inputs["input_ids"].shape[1]
    new = torch.tensor([[5], [9]])
    mask = torch.ones(2, length + 1).long()
    with torch.no_grad(), tokenprune.patch(llava, Varied(), position_ids=position_ids):
        cache = llava(**inputs, use_cache=True)[CACHE]
        moved = copy.deepcopy(cache)
        expected = llava(input_ids=new, attention_mask=mask, **{CACHE: cache}).logits[rows]
        getattr(moved, method)(argument)
        logits = llava(input_ids=new[rows], attention_mask=mask[rows], **{CACHE: moved}).logits
    assert_close(logits, expected)


def test_packing() -> None:
    keep = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 1]]).bool()
    packed, padded = pack(keep, [3, 2]), pack(keep[:, :4], [2, 1], trailing=[0, 2])
    assert packed.columns.tolist() == [[1, 3, 4], [0, 0, 4]]
    assert packed.valid.tolist() == [[True, True, True], [False, True, True]]
    assert padded.columns.tolist() == [[0, 1, 3], [0, 2, 3]]
    assert padded.valid.tolist() == [[False, True, True], [True, False, False]]
    assert (packed.holes, padded.holes, padded.counts) == (True, True, (2, 1))
    values = torch.arange(10.0).view(2, 5, 1)
    assert packed.gather_tokens(values)[..., 0].tolist() == [[1, 3, 4], [5, 5, 9]]
    assert packed.gather_tokens(values[:1])[..., 0].tolist() == [[1, 3, 4], [0, 0, 4]]  # one row for all


@pytest.mark.parametrize("strategy", [FoPru(keep_ratio=0.25), FastV(keep_ratio=0.25, layer=1)], ids=type)
@pytest.mark.parametrize("rows", [[0, 1], [0], [1]], ids=str)
def test_the_last_columns_stay_the_last(rows: list[int], strategy: Strategy) -> None:
    """Reinforcement trainers read them: prompts are padded on the left, answers on the right."""
    family, per_row = FAMILIES["llava-clip"], [1, 2]
    model, n = family.build(), 7
    whole = family.continued(family.prompt(per_row), torch.tensor([[5, 6, 7, 8, PAD, PAD], [9, 4, PAD, PAD, PAD, PAD]]))
    whole["attention_mask"] = (whole["input_ids"] != PAD).long()
    inputs = family.rows(whole, rows, per_row)
    ids, asked = inputs["input_ids"], inputs["attention_mask"][:, -n:].bool()
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        given = {**inputs, "position_ids": family.position_ids(model, inputs)}
        n_with_labels = model(**given, labels=ids.masked_fill(ids == IMAGE, -100)).logits.shape[1]
        logits = model(**given).logits
        found = [logits[:, -n:], model(**given, logits_to_keep=n).logits]
    with as_reported(model, ids, [handle.report]):
        expected = family.oracle(model, inputs, dropped_columns(ids, [handle.report]))[:, -n:]
    for last in found:
        assert_close(last[asked], expected[asked])
    assert n_with_labels < logits.shape[1]  # with labels, the loss is read, and padding is dropped
