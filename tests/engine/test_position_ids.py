"""Position IDs, and rows of different lengths."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.contract.answers import answer
from helpers.contract.modes import MODES
from helpers.contract.oracle import as_reported, assert_close, dropped_columns, oracle_logits
from helpers.families import FAMILIES
from helpers.tiny import CACHE, IMAGE, PAD, prompt

import tokenprune
from tokenprune import FastV, FoPru, Selection, Strategy
from tokenprune.sequence import position_ids as numbering
from tokenprune.sequence.packing import pack
from tokenprune.sequence.position_ids import id_shift
from tokenprune.tokens import VisualTokens

STEPS = 8


@pytest.mark.parametrize("position_ids", ["original", "compact"])
def test_a_loop_without_ids_goes_on_where_it_should(llava: Any, position_ids: Any) -> None:
    """Without a mask and position IDs, only the cache's length is known, so it must be the logical length."""
    inputs = prompt([1])
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25), position_ids=position_ids) as handle:
        out = answer(llava, inputs, max_new_tokens=STEPS)
        cache, new = None, {k: v for k, v in inputs.items() if k != "attention_mask"}
        for step in range(STEPS):
            result = llava(**new, **{CACHE: cache}, use_cache=True)
            cache = result[CACHE]
            assert cache.get_seq_length() == inputs["input_ids"].shape[1] + step
            assert_close(result.logits[:, -1], out.logits[step])
            new = {"input_ids": out.sequences[:, step - STEPS, None]}
    assert handle.report.n_kept == 9


def test_padding_counts_where_the_caller_gives_no_ids(llava: Any) -> None:
    """In a bare forward, transformers numbers all columns including padding; so does the patched model."""
    inputs = prompt([1, 2])
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep_ratio=0.25)) as handle:
        logits = llava(**inputs).logits
    ids = inputs["input_ids"]
    columns = torch.arange(ids.shape[1])[None]
    dropped = dropped_columns(ids, [handle.report])
    expected = oracle_logits(llava, ids, inputs["attention_mask"], inputs["pixel_values"], dropped, columns)
    assert_close(logits[:, -1], expected[:, -1])


def test_ids_that_count_columns() -> None:
    ids = torch.arange(6).expand(2, 6)
    dropped = torch.tensor([[False, True, True, False, True, False], [False] * 6])
    real = torch.ones_like(dropped)
    compact = numbering.compact_ids(ids, dropped, real)
    assert compact[0][~dropped[0]].tolist() == [0, 1, 2]
    assert compact[1].tolist() == list(range(6))
    assert id_shift(ids, compact, real).tolist() == [3, 0]
    assert id_shift(ids, ids, real).tolist() == [0, 0]


def test_ids_with_several_components() -> None:
    """Two text tokens, an image of 2 x 3, text, and padding at either end: M-RoPE after a component of plain text."""
    plain = [5, 6, 7, 8, 9, 10, 11, 12, 13]
    rows = [[0, 0, *plain, 0], [*plain, 0, 0, 0]]
    t, h, w = [5, 6, 7, 7, 7, 7, 7, 7, 10], [5, 6, 7, 7, 7, 8, 8, 8, 10], [5, 6, 7, 8, 9, 7, 8, 9, 10]
    ids = torch.tensor([rows, *([[0, 0, *part, 0], [*part, 0, 0, 0]] for part in (t, h, w))])
    real = ids[0] > 0
    dropped = torch.zeros(2, 12).bool()
    dropped[0, [4, 6, 7]] = True
    left = real & ~dropped
    compact = numbering.compact_ids(ids, dropped, real)
    for component in range(4):
        assert compact[component, 0, left[0]].tolist() == [5, 6, 7, 8, 9, 10]
        assert torch.equal(compact[component, 1], ids[component, 1])  # this row lost nothing
    assert id_shift(ids, compact, real).tolist() == [0, 0]  # 11 - 11: three rows and columns took as many IDs
    dropped[0, 8] = True
    compact = numbering.compact_ids(ids, dropped, real)
    assert compact[3, 0, real[0] & ~dropped[0]].tolist() == [5, 6, 7, 8, 9]
    assert id_shift(ids, compact, real).tolist() == [1, 0]
    assert id_shift(ids[1:], compact[1:], real).tolist() == [1, 0]


def test_what_follows_keeps_its_distance_to_the_last_column() -> None:
    """M-RoPE: a video's temporal IDs exceed those of the text after it, from which `generate` continues."""
    temporal, spatial = [5, 10, 11, 8], [5, 5, 6, 8]
    before = torch.tensor([temporal, spatial, spatial])[:, None]
    after = torch.tensor([5, 6, 7, 8]).expand(3, 1, 4)
    assert id_shift(before, after, torch.ones(1, 4).bool()).tolist() == [0]


# Rows of a batch that keep different numbers of visual tokens: holes in the packed sequence and in the cache.


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
