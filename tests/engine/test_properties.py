"""Random prompts and settings against the exact oracle, beyond the few sizes of the contract matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pytest
import torch
from helpers.contract.oracle import assert_close, dropped_columns, of_left
from helpers.families import FAMILIES
from helpers.families.base import Size
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import tokenprune
from tokenprune import STRATEGIES
from tokenprune.selection import budget

STEPS = 2

#: Height and width in pixels of the images for a family.
SIZES: dict[str, st.SearchStrategy[Size]] = {
    "llava-clip": st.just((24, 24)),
    "llava-next": st.tuples(st.integers(8, 40), st.integers(8, 40)),
    "qwen2.5-vl": st.tuples(*[st.integers(1, 6).map(lambda n: 8 * n)] * 2),
    "internvl": st.tuples(st.just(24), st.integers(1, 3).map(lambda n: 24 * n)),
}


@dataclass(frozen=True)
class Case:
    """One batch, and how it is pruned."""

    images_per_row: list[int]
    texts: list[int]
    sizes: list[Size]
    padding: Literal["left", "right"]
    strategy: str
    amount: Mapping[str, float]
    budget_per: str
    position_ids: Literal["original", "compact"]
    seed: int


@st.composite
def cases(draw: st.DrawFn, sizes: st.SearchStrategy[Size]) -> Case:
    per_row = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3).filter(any))
    return Case(
        images_per_row=per_row,
        texts=draw(st.lists(st.integers(1, 6), min_size=len(per_row), max_size=len(per_row))),
        sizes=draw(st.lists(sizes, min_size=sum(per_row), max_size=sum(per_row))),
        padding=draw(st.sampled_from(["left", "right"])),
        strategy=draw(st.sampled_from(["fopru", "grid", "random"])),
        amount=draw(
            st.one_of(
                st.fixed_dictionaries({"keep_ratio": st.floats(0.01, 1.0)}),
                st.fixed_dictionaries({"keep": st.integers(1, 50)}),
            )
        ),
        budget_per=draw(st.sampled_from(["image", "tile"])),
        position_ids=draw(st.sampled_from(["original", "compact"])),
        seed=draw(st.integers(0, 99)),
    )


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build()


def check(name: str, case: Case) -> None:
    """Check every surviving position of a forward, answers if the padding allows `generate`, and the budgets."""
    family, model = FAMILIES[name], model_of(name)
    inputs = family.prompt(case.images_per_row, case.texts, seed=case.seed, padding=case.padding, sizes=case.sizes)
    strategy = STRATEGIES[case.strategy](**case.amount, budget_per=case.budget_per)  # type: ignore[arg-type]
    answers = {"max_new_tokens": STEPS, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    with torch.no_grad(), tokenprune.patch(model, strategy, position_ids=case.position_ids) as handle:
        logits = model(**inputs, position_ids=family.position_ids(model, inputs)).logits
        report = handle.report
        out = model.generate(**inputs, **answers) if case.padding == "left" else None

    assert [image.row for image in report.images] == [r for r, n in enumerate(case.images_per_row) for _ in range(n)]
    for image in report.images:
        assert image.n_kept == budget(image.n_visual, strategy.keep_ratio, strategy.keep)
        assert image.kept.tolist() == sorted(set(image.kept.tolist()))

    whole = inputs if out is None else family.continued(inputs, out.sequences[:, -STEPS:])
    dropped = dropped_columns(whole["input_ids"], [report])
    ids = family.compact_ids(model, whole, dropped) if case.position_ids == "compact" else None
    expected = family.oracle(model, whole, dropped, ids)
    length = inputs["input_ids"].shape[1]
    for row in range(len(case.images_per_row)):
        left = (inputs["attention_mask"][row].bool() & ~dropped[row, :length]).nonzero()[:, 0]
        assert_close(of_left(logits[row], inputs["attention_mask"][row], left), expected[row, left])
    if out is not None:
        assert_close(torch.stack(out.logits, 1), expected[:, -STEPS - 1 : -1])


@pytest.mark.parametrize("name", SIZES)
def test_dropping_equals_masking_on_any_batch(name: str) -> None:
    phases = [Phase.generate, Phase.shrink]

    @settings(max_examples=12, deadline=None, derandomize=True, database=None, phases=phases)
    @given(cases(SIZES[name]))
    def holds(case: Case) -> None:
        check(name, case)

    holds()
