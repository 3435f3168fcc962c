"""Measure the unpruned model, strategies and their ideals alternately, in one process.

Other load on the machine affects neighbours in a round alike. Each round reverses the order of the previous one, and
ratios are taken within rounds. Models are patched before the clock starts.
"""

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.progress import track

from tokenprune.errors import SettingError
from tokenprune.evals.bench.cases import IDEAL, Case, cases, facts
from tokenprune.evals.bench.inputs.prompts import Inputs
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.timing.clock import Seconds, generated, phases
from tokenprune.evals.bench.timing.load import Load
from tokenprune.evals.bench.timing.memory import with_peak
from tokenprune.evals.run.setups import Pruned, Setup, Unpruned


def measure(model: Any, inputs: Inputs, pruned: Sequence[Pruned], record: Record, *, rounds: int) -> None:
    """Add `rounds` rounds of prefill and decoding to `record`, which is written after each, and the cases' costs if
    they are missing."""
    batch, compared = len(inputs["input_ids"]), _cases(model, inputs, pruned, record)

    def timed(case: Case) -> Seconds:
        return phases(model, case.prefill, case.n_columns)

    for case in track(compared, f"first calls, batch {batch}"):
        if (batch, case.name) in record.facts:
            _run(case, lambda case=case: timed(case))
        else:
            record.add(facts(model, inputs, case))
            record.write()
    _rounds(record, batch, compared, rounds, timed)


def measure_throughput(
    model: Any, inputs: Inputs, pruned: Sequence[Pruned], record: Record, *, rounds: int, n_new: int
) -> None:
    """Add `rounds` rounds of `generate` with `n_new` tokens to `record`, and its peak memory.

    `generate` has no ideal, because it takes images or embeddings and the ideal has neither. SettingError if the record
    has rounds with another number of tokens, whose times are not comparable.
    """
    for fact in record.facts.values():
        if fact.n_new not in (None, n_new):
            raise SettingError(
                f"{record.path}: its rounds generate {fact.n_new} tokens, and not {n_new}. Write --new-tokens "
                f"{fact.n_new}, or name another --output."
            )
    batch = len(inputs["input_ids"])
    chosen = [case for case in _cases(model, inputs, pruned, record) if case.strategy != IDEAL]

    def generate(_: Case) -> Seconds:
        return generated(model, inputs, n_new)

    for case in track(chosen, f"first calls, batch {batch}"):
        fact = record.facts.get((batch, case.name)) or facts(model, inputs, case)
        if fact.n_new == n_new:
            _run(case, lambda case=case: generate(case))
        else:
            _, peak = _run(case, lambda case=case: with_peak(lambda: generate(case), model.device))
            record.add(replace(fact, generate_bytes=peak, n_new=n_new))
            record.write()
    _rounds(record, batch, chosen, rounds, generate)


def _cases(model: Any, inputs: Inputs, pruned: Sequence[Pruned], record: Record) -> list[Case]:
    """The cases, after checking that the record has none of them with other settings."""
    made = cases(model, inputs, pruned, record.facts)
    for case in made:
        record.check_settings(case.name, case.settings)
    return made


def ttft_ratios(model: Any, inputs: Any, compared: Sequence[Setup], rounds: int) -> list[float]:
    """Return `generate`'s time to one token under each setup, as a ratio to the unpruned model's.

    Medians of ratios within rounds, each of which reverses the order of the one before. Call each setup once before: a
    first call allocates.
    """
    calls = [Unpruned(), *compared]
    ratios: list[list[float]] = [[] for _ in compared]
    for turn in range(rounds):
        seconds = {}
        for number in range(len(calls)) if turn % 2 == 0 else reversed(range(len(calls))):
            with calls[number].patched(model):
                seconds[number] = generated(model, dict(inputs), 1)["generate"]
        for number, of_case in enumerate(ratios, start=1):
            of_case.append(seconds[number] / seconds[0])
    return [statistics.median(of_case) for of_case in ratios]


def _rounds(record: Record, batch: int, cases_: Sequence[Case], rounds: int, timed: Callable[[Case], Seconds]) -> None:
    for turn in track(range(rounds), f"rounds, batch {batch}"):
        order, load = cases_ if turn % 2 else list(reversed(cases_)), Load()
        seconds = {case.name: _run(case, lambda case=case: timed(case)) for case in order}
        record.add_round(batch, {case.name: seconds[case.name] for case in cases_}, load.others())
        record.write()


def _run(case: Case, call: Callable[[], Any]) -> Any:
    gc.collect()
    with case.patched():
        return call()
