"""The bench counts and compares the right things. Times are not tested."""

from collections import deque
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.files.search import deep_llava
from helpers.seen import seen_by
from helpers.tiny import prompt, tiny_llava

import tokenprune
from tokenprune.engine.stages.pruning import StagePruning
from tokenprune.evals.bench import ideal, tables
from tokenprune.evals.bench.cases import IDEAL, Facts, cases, facts
from tokenprune.evals.bench.figures import Figures, figures
from tokenprune.evals.bench.inputs import prompts
from tokenprune.evals.bench.measuring import measure, measure_throughput
from tokenprune.evals.bench.record import Record, Round, about
from tokenprune.evals.bench.schedule import Schedule
from tokenprune.evals.bench.timing.clock import PHASES, Seconds, phases
from tokenprune.evals.bench.timing.memory import LiveBytes, with_peak
from tokenprune.evals.models.cache import cache_in
from tokenprune.evals.run.setups import Pruned
from tokenprune.strategies.in_llm.par import PAR
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.tokens import VisualTokens

CPU = torch.device("cpu")
STRATEGIES = {
    "Grid": tokenprune.Grid(keep_ratio=0.5),
    "VFlowOpt": VFlowOpt(keep_ratio=0.3, first=0.5),
    "FlowCut": tokenprune.STRATEGIES["flowcut"](keep_ratio=0.25),
}


def pruned(**strategies: tokenprune.Strategy) -> list[Pruned]:
    return [
        Pruned(label=label, keep_ratio=strategy.keep_ratio or 0.0, strategy=strategy)
        for label, strategy in strategies.items()
    ]


def measured(path: Path, batch: int = 1, rounds: int = 3) -> list[Figures]:
    model = deep_llava()
    record = Record.open(path, about(model, "tiny", "sdpa", 24))
    measure(model, prompts.random_prompt(model, batch), pruned(**STRATEGIES), record, rounds=rounds)
    return figures(record)


# The ideal.


def test_the_ideal_is_the_model_on_a_shorter_prompt() -> None:
    """Keeping the first tokens with compact position IDs equals a prompt of that length."""

    class First(tokenprune.ScoreStrategy):
        def score(self, tokens: VisualTokens) -> torch.Tensor:
            return torch.arange(tokens.n_visual, 0, -1).float()

    model, inputs = tiny_llava(), prompt([1])
    with tokenprune.patch(model, First(keep=7), position_ids="compact"):
        patched = model(**inputs, logits_to_keep=1).logits
    output = ideal.prefill(model, inputs, Schedule((7, 7)))
    assert cache_in(output)[1].get_seq_length() == inputs["input_ids"].shape[1] - 36 + 7
    torch.testing.assert_close(output.logits, patched)


def test_no_layer_of_the_ideal_is_longer_or_shorter_than_the_pruned_one() -> None:
    """For strategies that prune before the language model, inside it, or in the tower."""
    model = deep_llava()
    inputs = prompts.random_prompt(model, 2)
    found = {case.name: case for case in cases(model, inputs, pruned(**STRATEGIES))}

    for label, strategy in STRATEGIES.items():
        own = found[f"{label} @ {strategy.keep_ratio:g}"]
        assert own.ideal is not None
        assert seen_by(model, own) == seen_by(model, found[own.ideal])
    assert len({len(set(seen_by(model, case))) for case in found.values()}) > 1
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_model_that_skips_layers_has_no_ideal() -> None:
    model = deep_llava()
    par = PAR(keep_ratio=0.5, layer=1, skip=(2,))
    *_, case = cases(model, prompts.random_prompt(model, 1), pruned(PAR=par))
    assert (case.strategy, case.ideal, case.schedule.layers[2]) == ("PAR", None, 0)


def test_known_cases_are_not_run_again() -> None:
    model = tiny_llava()
    inputs, grid = prompts.random_prompt(model, 2), pruned(Grid=tokenprune.Grid(0.5))
    found = cases(model, inputs, grid)
    known = {(2, case.name): facts(model, inputs, case) for case in found}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Pruned, "patched", lambda *_: pytest.fail("a known case is run again"))
        again = cases(model, inputs, grid, known)
    assert [(case.name, case.schedule, case.ideal) for case in again] == [
        (case.name, case.schedule, case.ideal) for case in found
    ]


def test_selecting_is_timed_wherever_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the language model, inside it, and in the tower."""
    model, ticks, begin = deep_llava(), iter(range(10**6)), StagePruning._decide

    def slowly(self: StagePruning, *args: Any) -> torch.Tensor:
        deque(islice(ticks, 1000), maxlen=0)
        return begin(self, *args)

    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(StagePruning, "_decide", slowly)
    inputs = prompts.random_prompt(model, 1)
    taken: dict[str, float] = {}
    for case in cases(model, inputs, pruned(**STRATEGIES)):
        with case.patched():
            taken[case.strategy] = phases(model, case.prefill, case.n_columns)["selection"]
    assert all(taken[name] > taken["unpruned"] for name in STRATEGIES)  # whose hooks are transformers'
    assert 2000 < taken["VFlowOpt"] < 3000  # two stages
    assert max(taken["Grid"], taken["FlowCut"]) < 1000


# Figures.


def test_every_case_has_every_figure(tmp_path: Path) -> None:
    found = measured(tmp_path / "bench.json", batch=2)
    assert [one.facts.strategy for one in found] == ["unpruned", IDEAL, IDEAL, IDEAL, *STRATEGIES]
    for one in found:
        assert set(one.seconds) == set(PHASES)
        assert all(median.n == 3 and 0 < median.low <= median.value <= median.high for median in one.seconds.values())
        assert one.facts.peak_bytes > one.facts.kv_cache_bytes > 0
    unpruned, *_, grid, stages, flowcut = found
    assert (unpruned.flops, unpruned.peak, unpruned.cache) == (1, 1, 1)
    for one in (grid, stages, flowcut):
        assert one.is_strategy
        for ratio in (one.ttft_to_unpruned, one.ttft_to_ideal, one.prefill_to_ideal, one.decode_to_ideal):
            assert ratio is not None
            assert 0 < ratio.low <= ratio.value <= ratio.high
        assert one.flops < 1
        assert one.cache < 1
        assert one.break_even is None or one.break_even > 0
    assert grid.cache == (18 + 40) / (36 + 40)
    assert unpruned.ttft_to_ideal is unpruned.break_even is None


def test_ratios_are_taken_within_rounds(tmp_path: Path) -> None:
    """A machine that is twice as slow in one round changes no ratio; medians of times alone would."""
    names = {"unpruned": None, "ideal 5": None, "Grid @ 0.5": "ideal 5"}
    known = [
        Facts(
            batch=1,
            name=name,
            strategy=name.split()[0],
            keep_ratio=0.125,
            n_visual=10,
            n_kept=5,
            n_mean=5.0,
            schedule=Schedule((5, 5)),
            ideal=of,
            flops=1,
            kv_cache_bytes=1,
            peak_bytes=1,
        )
        for name, of in names.items()
    ]
    seconds: list[dict[str, Seconds]] = [
        {name: dict.fromkeys(PHASES, slow * share) for name, share in zip(names, shares, strict=True)}
        for slow, shares in ((1, (1.0, 0.50, 0.50)), (2, (1.0, 0.50, 0.55)), (9, (1.0, 0.50, 0.60)))
    ]
    record = Record(tmp_path / "x", {}, known, [Round(1, "2026-01-01", one) for one in seconds])
    record.add_round(1, {"unpruned": dict.fromkeys(PHASES, 100.0)})  # a round without the others is ignored
    *_, grid = figures(record)
    assert grid.ttft_to_unpruned is not None
    assert (grid.ttft_to_unpruned.value, grid.ttft_to_unpruned.n) == (0.55, 3)
    assert grid.ttft_to_ideal is not None
    assert grid.ttft_to_ideal.value == pytest.approx(1.1)
    assert (grid.ttft_to_ideal.low, grid.ttft_to_ideal.high) == (1.0, pytest.approx(1.2))
    # Selection takes 1.1 (median of 0.5, 1.1, 5.4). With 10 visual tokens, pruning saves that and 0.9 (0.5, 0.9, 3.6).
    assert grid.break_even == pytest.approx(10 * 1.1 / 2.0)
    (line,) = tables.ratios([grid]).lines
    assert line[2] == "12.5%"  # as requested, not rounded


def test_operations_follow_what_is_dropped() -> None:
    """If nothing is dropped, the cost is that of the unpruned model; a stage in the language model saves more."""
    model = deep_llava()
    inputs = prompts.random_prompt(model, 1)
    compared = {
        "everything": tokenprune.Grid(keep_ratio=1.0),
        "half": tokenprune.Grid(keep_ratio=0.5),
        "before": VFlowOpt(keep_ratio=0.5, progressive=False, recycle=False),
        "stages": VFlowOpt(keep_ratio=0.3, first=0.5, recycle=False),
    }
    counted = [facts(model, inputs, case) for case in cases(model, inputs, pruned(**compared))]
    unpruned = next(one for one in counted if one.strategy == "unpruned")
    everything, half, before, stages = counted[-4:]
    assert everything.flops == unpruned.flops
    assert stages.flops < before.flops < everything.flops
    # 18 of the prompt's 36 + 40 tokens are dropped, and with them their share of all matrix products except
    # attention's.
    text = model.config.text_config
    linear = sum(p.numel() for p in model.model.language_model.layers.parameters() if p.ndim == 2)
    saved = 2 * linear * 18 + 4 * text.num_hidden_layers * text.num_attention_heads * text.head_dim * (76**2 - 58**2)
    # Older transformers also computes rotary angles as a matrix product.
    assert everything.flops - half.flops == pytest.approx(saved, rel=1e-4)
    assert {one.name: one.flops for one in counted}["ideal 18"] == pytest.approx(half.flops, rel=1e-4)


# Memory.


def test_live_bytes() -> None:
    weights = torch.ones(1000)

    def call() -> torch.Tensor:
        a = weights * 2  # 4,000 bytes
        b = torch.cat([a, a])  # 12,000
        b.add_(1)
        view = b.view(2, -1)[1]
        del a, b  # 8,000, for a view of it is left
        assert live._now == 8000
        return view * 1  # 12,000

    with LiveBytes() as live:
        call()
    assert live.peak == 12000
    assert live._now == 0
    assert with_peak(lambda: weights.view(10, -1).T, CPU)[1] == 0


def test_throughput_times_generate(tmp_path: Path) -> None:
    model = tiny_llava()
    record = Record.open(tmp_path / "bench.json", about(model, "tiny", "sdpa", 24))
    for batch in (1, 2):
        inputs = prompts.random_prompt(model, batch)
        measure_throughput(model, inputs, pruned(Grid=tokenprune.Grid(0.25)), record, rounds=2, n_new=3)
    found = figures(record)
    assert [(one.facts.batch, one.facts.name, one.facts.n_new) for one in found] == [
        (batch, name, 3) for batch in (1, 2) for name in ("unpruned", "Grid @ 0.25")
    ]
    assert all(one.facts.generate_bytes for one in found)
    lines = tables.throughput(record, found, 1e9).lines
    assert len(lines) == 4
    assert int(lines[3][-1].replace(",", "")) > int(lines[2][-1].replace(",", "")) > 100
    assert lines[3][6].startswith(f"{1 / found[3].generate_to_unpruned.value:.3f}")  # pyright: ignore[reportOptionalMemberAccess]
    with pytest.raises(tokenprune.SettingError, match=r"generate 3 tokens, and not 4\. Write --new-tokens 3"):
        measure_throughput(model, inputs, [], record, rounds=1, n_new=4)
