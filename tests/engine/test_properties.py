"""Properties that hold for any strategy, and merging everything."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pytest
import torch
from engine.stages.test_stage_selections import Folding
from helpers.contract.oracle import as_reported, assert_close, dropped_columns, of_left, oracle_logits
from helpers.families import FAMILIES
from helpers.families.base import Size
from helpers.models.staged import FAMILY
from helpers.tiny import prompt
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import tokenprune
from tokenprune import STRATEGIES
from tokenprune.evals.bench.timing.memory import with_peak
from tokenprune.selection import Merge, Selection, budget
from tokenprune.strategy import Strategy
from tokenprune.tokens import VisualTokens

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


# A strategy that keeps every visual token and merges some of them into others.


@dataclass(frozen=True)
class Blend(Strategy):
    """Keeps all, and makes the first token the mean of all of them."""

    keep_ratio: float | None = 1.0

    def select(self, tokens: VisualTokens) -> Selection:
        n, every = tokens.n_visual, torch.arange(tokens.n_visual)
        merge = Merge(torch.zeros(n, dtype=torch.long), every, torch.full((n,), 1 / n))
        return Selection(every, n, merged=merge)


def test_merging_without_dropping(llava: Any) -> None:
    inputs = prompt([1, 1])
    with torch.no_grad(), tokenprune.patch(llava, Blend()) as handle:
        logits = llava(**inputs).logits
    ids = inputs["input_ids"]
    dropped = dropped_columns(ids, [handle.report])
    assert not dropped.any()
    with as_reported(llava, ids, [handle.report]):
        expected = oracle_logits(llava, ids, inputs["attention_mask"], inputs["pixel_values"], dropped)
    length = int(inputs["attention_mask"].sum(1).min())  # of the shorter row
    assert_close(logits[:, -length:], expected[:, -length:])


def test_states_before_a_stage_that_merges_are_those_of_the_unpatched_model() -> None:
    """The stage after a layer does not write into the states that the caller gets from that layer."""
    model, inputs = FAMILY.build(), prompt([1])
    with torch.no_grad():
        plain = model(**inputs, output_hidden_states=True).hidden_states
        with tokenprune.patch(model, Folding()):
            states = model(**inputs, output_hidden_states=True).hidden_states
    assert torch.equal(states[1], plain[1])
    assert states[2].shape != plain[2].shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_pairs_are_summed_as_few_are(dtype: torch.dtype) -> None:
    """As a matrix product and one by one, with duplicate pairs, an unused feature and gradients; in float32 even under
    autocast."""
    generator = torch.Generator().manual_seed(0)
    features, kept = torch.randn(40, 16, generator=generator).to(dtype), torch.arange(0, 40, 4)
    features[39] = torch.nan
    targets, sources = (torch.randint(most, (300,), generator=generator) for most in (7, 39))
    merge = Merge(targets, sources, torch.rand(300, generator=generator) / 40)
    found = []
    for least in (torch.inf, 0.0):
        leaf = features.clone().requires_grad_()
        with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
            patch.setattr("tokenprune.selection.merge.DENSE", least)
            merged = merge.apply(leaf, kept)
        merged.float().square().sum().backward()
        assert leaf.grad is not None
        found.append((merged.detach(), leaf.grad))
    absolute, relative = (1e-6, 1e-5) if dtype == torch.float32 else (1e-3, 2e-2)
    for product, added in zip(*found, strict=True):
        torch.testing.assert_close(product, added, atol=absolute, rtol=relative)
    assert torch.equal(found[0][0][7:], features[kept][7:])


def test_memory_does_not_grow_with_the_number_of_pairs() -> None:
    """FastVID merges a token into an anchor of every frame of its segment: many pairs, and few tokens."""
    features, kept, n_pairs = torch.randn(64, 256), torch.arange(0, 64, 4), 20_000
    generator = torch.Generator().manual_seed(0)
    targets, sources = (torch.randint(most, (n_pairs,), generator=generator) for most in (12, 64))
    merge = Merge(targets, sources, torch.rand(n_pairs, generator=generator))
    expected = features[kept].double()
    sums = torch.zeros_like(expected).index_add(0, targets, features[sources].double() * merge.weights[:, None])
    expected[:12] = sums[:12]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokenprune.selection.merge.PAIR_ELEMENTS", 2**16)
        patch.setattr("tokenprune.selection.merge.DENSE", 0)
        merged, peak = with_peak(lambda: merge.apply(features, kept), torch.device("cpu"))
    torch.testing.assert_close(merged.double(), expected, atol=1e-3, rtol=1e-4)
    assert torch.equal(merged[12:], features[kept][12:])
    assert peak < 20 * features.nbytes < n_pairs * features[0].nbytes / 10
