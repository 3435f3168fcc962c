"""Statistics over rounds: medians, and ratios within rounds, with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tokenprune.evals.bench.cases import IDEAL, Facts
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.timing.clock import Seconds
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.stats import bootstrap_interval

RESAMPLES = 4000


@dataclass(frozen=True)
class Median:
    """The median over `n` rounds, and its 95 % interval: percentiles of the medians of resampled rounds.

    For up to five rounds, these are the least and the largest. A range of five contains the true median in 94 of 100
    cases, one of two in every other.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Median | None":
        """Return None for no rounds; for one round, or equal ones, the interval is that value."""
        if not values:
            return None
        median = float(np.median(values))
        if len(set(values)) == 1:
            return cls(median, median, median, len(values))
        low, high = bootstrap_interval((np.asarray(values),), np.median, RESAMPLES)
        return cls(median, low, high, len(values))


@dataclass(frozen=True)
class Figures:
    """One case in numbers; times are in seconds. None: not measured, or undefined.

    tower_to_unpruned, ttft_to_unpruned, ttft_to_ideal, prefill_to_ideal: ratios of times, each within its round.
    decode_to_ideal: the same for a decoding step; the ideal's is the unpatched model's at the same cache length.
    flops, peak, cache: this case's divided by the unpruned model's.
    break_even: the number of visual tokens from which a strategy saves more than selecting costs, assuming that the
        cost does not depend on their number and the saving grows with it; both are as measured at `facts.n_visual`.
        None if it saves nothing there.
    """

    facts: Facts
    seconds: dict[str, Median]
    tower_to_unpruned: Median | None
    ttft_to_unpruned: Median | None
    ttft_to_ideal: Median | None
    prefill_to_ideal: Median | None
    decode_to_ideal: Median | None
    generate_to_unpruned: Median | None
    flops: float
    peak: float
    cache: float
    break_even: float | None

    @property
    def is_strategy(self) -> bool:
        return self.facts.strategy not in (UNPRUNED, IDEAL)


def figures(record: Record) -> list[Figures]:
    """Return the figures of every case, by batch size, in the order of the record."""
    return [_figures(record, fact) for fact in sorted(record.facts.values(), key=lambda fact: fact.batch)]


def _figures(record: Record, fact: Facts) -> Figures:
    unpruned = record.facts[fact.batch, UNPRUNED]
    rounds = [round_.seconds for round_ in record.rounds if round_.batch == fact.batch and fact.name in round_.seconds]

    def over(other: str | None, value: Callable[[Seconds, Seconds], float], phase: str) -> Median | None:
        return Median.of(
            [
                value(turn[fact.name], turn[other])
                for turn in rounds
                if other in turn and phase in turn[fact.name] and phase in turn[other]
            ]
        )

    def ratio(other: str | None, phase: str) -> Median | None:
        return over(other, lambda own, others: own[phase] / others[phase], phase)

    phases = dict.fromkeys(phase for turn in rounds for phase in turn[fact.name])
    medians = {
        phase: Median.of([turn[fact.name][phase] for turn in rounds if phase in turn[fact.name]]) for phase in phases
    }
    return Figures(
        facts=fact,
        seconds={phase: median for phase, median in medians.items() if median is not None},
        tower_to_unpruned=ratio(UNPRUNED, "tower"),
        ttft_to_unpruned=ratio(UNPRUNED, "ttft"),
        ttft_to_ideal=ratio(fact.ideal, "ttft"),
        prefill_to_ideal=ratio(fact.ideal, "prefill"),
        decode_to_ideal=ratio(fact.ideal, "decode"),
        generate_to_unpruned=ratio(UNPRUNED, "generate"),
        flops=fact.flops / unpruned.flops,
        peak=fact.peak_bytes / unpruned.peak_bytes,
        cache=fact.kv_cache_bytes / unpruned.kv_cache_bytes,
        break_even=_break_even(fact, over(UNPRUNED, _saved, "selection"), medians.get("selection")),
    )


def _saved(own: Seconds, unpruned: Seconds) -> float:
    """Return the time that fewer tokens save, not counting their selection."""
    return unpruned["ttft"] - own["ttft"] + own["selection"]


def _break_even(fact: Facts, saved: Median | None, selection: Median | None) -> float | None:
    if fact.strategy in (UNPRUNED, IDEAL) or saved is None or selection is None or saved.value <= 0:
        return None
    return fact.n_visual * selection.value / saved.value


@dataclass(frozen=True)
class Memory:
    """The peak of `generate` as a linear function of the batch size: the weights, a fixed part, and a part per row."""

    fixed: float
    row: float

    @classmethod
    def of(cls, weights: int, peaks: dict[int, int]) -> "Memory":
        """Fit peaks above the weights, by batch size. A single size is attributed to the rows alone."""
        if len(peaks) == 1:
            ((batch, peak),) = peaks.items()
            return cls(float(weights), peak / batch)
        row, anyway = np.polyfit(list(peaks), list(peaks.values()), 1)
        return cls(weights + float(anyway), float(row))

    def largest_batch(self, budget: float) -> int:
        return max(0, int((budget - self.fixed) / self.row))
