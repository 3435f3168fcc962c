"""The cost of a patch per decode step is measured against a cache of the same lengths. Its amount is not tested."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from helpers.files.search import deep_llava

from tokenprune.evals.bench.inputs import prompts
from tokenprune.evals.dev.experiments import decode_steps as steps
from tokenprune.evals.dev.tables.speed.decode_steps import table
from tokenprune.evals.models.cache import cache_in
from tokenprune.evals.run.setups import Pruned
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt


def test_steps_go_on_behind_the_same_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the patch, every layer has the same number of keys at every step."""
    model, lengths, ticks = deep_llava(), [], iter(range(10**6))
    monkeypatch.setattr("time.process_time", lambda: float(next(ticks)))
    vflowopt = Pruned(label="VFlowOpt", keep_ratio=0.3, strategy=VFlowOpt(keep_ratio=0.3, first=0.5))
    hook = model.register_forward_hook(
        lambda module, args, output: lengths.append([layer.keys.shape[2] for layer in cache_in(output)[1].layers])
    )
    one = steps.step(model, prompts.random_prompt(model, 1), vflowopt, rounds=3)
    hook.remove()
    (_, *plain), patched = lengths[: steps.STEPS + 2], lengths[steps.STEPS + 2 : 2 * steps.STEPS + 3]
    assert plain == patched
    assert len({*plain[0]}) > 1
    assert (one.plain.value, one.added.value, one.plain.n) == (1 / steps.STEPS, 0, 3)
    assert "| VFlowOpt | 111.1 ms | 0.00 [0.00, 0.00] ms | 0.0% |" in str(table([asdict(one)]))
