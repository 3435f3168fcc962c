"""What the rounds say: medians, and ratios within rounds with their interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from tokenprune.evals.bench.cases import IDEAL, Facts
from tokenprune.evals.bench.clock import Seconds
from tokenprune.evals.bench.record import Record
from tokenprune.evals.configurations import UNPRUNED

RESAMPLES = 4000


@dataclass(frozen=True)
class Median:
    """The median over `n` rounds, and its 95 % interval: the percentiles of the medians of rounds drawn again."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Median | None":
        """None of no rounds; of one round, or of equal ones, the interval is that value."""
        if not values:
            return None
        median = float(np.median(values))
        if len(set(values)) == 1:
            return cls(median, median, median, len(values))
        drawn = bootstrap(
            (values,), np.median, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
        )
        low, high = drawn.confidence_interval
        return cls(median, float(low), float(high), len(values))


@dataclass(frozen=True)
class Figures:
    """One case in numbers; times are seconds. None: not measured, or there is no such thing.

    selection: what pruning adds from the vision tower's end to the first decoder layer, each round against unpruned.
    ttft_to_unpruned, ttft_to_ideal, prefill_to_ideal: ratios of times, each within its round.
    decode_to_ideal: the same of a decoding step; the ideal's is the unpatched model's at the same cache length.
    flops, peak, cache: this case's by the unpruned model's.
    break_even: from how many visual tokens on the prefill saves more than the selection costs, as if the cost did not
        depend on their number and the saving grew with it; both are as measured at `facts.n_visual`. What selection
        costs seldom falls with the number of tokens, so this is rather too high. None where stages select inside the
        prefill.
    """

    facts: Facts
    seconds: dict[str, Median]
    selection: Median | None
    ttft_to_unpruned: Median | None
    ttft_to_ideal: Median | None
    prefill_to_ideal: Median | None
    decode_to_ideal: Median | None
    generate_to_unpruned: Median | None
    flops: float
    peak: float
    cache: float
    break_even: Median | None

    @property
    def is_strategy(self) -> bool:
        return self.facts.strategy not in (UNPRUNED, IDEAL)


def figures(record: Record) -> list[Figures]:
    """Return those of every case, by batch size, in the order in which they came."""
    return [_figures(record, fact) for fact in sorted(record.facts.values(), key=lambda fact: fact.batch)]


def _figures(record: Record, fact: Facts) -> Figures:
    unpruned = record.facts[fact.batch, UNPRUNED]
    rounds = [seconds for batch, _, seconds in record.rounds if batch == fact.batch and fact.name in seconds]

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

    def break_even(own: Seconds, others: Seconds) -> float:
        return fact.n_visual * _selection(own, others) / (others["prefill"] - own["prefill"])

    before_only = fact.ideal is not None and fact.n_mean == fact.n_kept < fact.n_visual
    phases = dict.fromkeys(phase for turn in rounds for phase in turn[fact.name])
    medians = {
        phase: Median.of([turn[fact.name][phase] for turn in rounds if phase in turn[fact.name]]) for phase in phases
    }
    return Figures(
        facts=fact,
        seconds={phase: median for phase, median in medians.items() if median is not None},
        selection=over(UNPRUNED, _selection, "between") if fact.strategy not in (UNPRUNED, IDEAL) else None,
        ttft_to_unpruned=ratio(UNPRUNED, "ttft"),
        ttft_to_ideal=ratio(fact.ideal, "ttft"),
        prefill_to_ideal=ratio(fact.ideal, "prefill"),
        decode_to_ideal=ratio(fact.ideal, "decode"),
        generate_to_unpruned=ratio(UNPRUNED, "generate"),
        flops=fact.flops / unpruned.flops,
        peak=fact.peak_bytes / unpruned.peak_bytes,
        cache=fact.kv_cache_bytes / unpruned.kv_cache_bytes,
        break_even=over(UNPRUNED, break_even, "between") if before_only else None,
    )


def _selection(own: Seconds, unpruned: Seconds) -> float:
    return own["between"] - unpruned["between"]
