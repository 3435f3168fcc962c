"""Properties that hold for any strategy, and merging everything."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from engine.stages.test_stage_selections import Folding
from helpers.contract.oracle import as_reported, assert_close, dropped_columns, oracle_logits
from helpers.models.staged import FAMILY
from helpers.tiny import prompt

import tokenprune
from tokenprune.evals.bench.timing.memory import with_peak
from tokenprune.selection import Merge, Selection
from tokenprune.strategy import Strategy
from tokenprune.tokens import VisualTokens

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
