"""Every family can be timed: unpruned, pruned and as the ideal, including decoding."""

import pytest
import torch
from helpers.families import FAMILIES

import tokenprune
from tokenprune.adapters.record import record_of
from tokenprune.evals.bench.cases import IDEAL, cases, facts
from tokenprune.evals.bench.timing.clock import PHASES, phases
from tokenprune.evals.run.setups import Pruned


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.refused is None])
def test_a_round(name: str) -> None:
    family = FAMILIES[name]
    model = family.build()
    if getattr(model.config, "audio_token_id", 0) is None:  # no released Gemma 4 is like this; it takes no embeddings
        model.config.audio_token_id = model.config.video_token_id
    inputs = family.prompt([1], sizes=list(family.sizes[:1]))
    half = Pruned(label="Random", keep_ratio=0.5, strategy=tokenprune.Random(keep_ratio=0.5))
    unpruned, *others = cases(model, inputs, [half])
    assert (others[0].strategy == IDEAL) == record_of(model.config.model_type).has_ideal
    costs = [facts(model, inputs, case) for case in (unpruned, *others)]
    assert all(pruned.flops < costs[0].flops and pruned.n_kept < costs[0].n_kept for pruned in costs[1:])
    for case in (unpruned, *others):
        with case.patched(), torch.inference_mode():
            assert bool(case.prefill().logits.isfinite().all())
        with case.patched():
            assert all(phases(model, case.prefill, case.n_columns)[phase] > 0 for phase in PHASES[2:4])
