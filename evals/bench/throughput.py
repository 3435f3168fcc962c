"""Samples a second, and the largest batch that a given memory holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokenprune.evals.bench.figures import Figures, Median
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.tables import _case, _ratio
from tokenprune.evals.report.table import NOTHING, Table


@dataclass(frozen=True)
class Memory:
    """The peak of `generate` as a line over the batch size: weights, what a call takes anyway, and what each row
    adds."""

    fixed: float
    row: float

    @classmethod
    def of(cls, weights: int, peaks: dict[int, int]) -> "Memory":
        """From peaks above the weights by batch size; of a single size, all is taken as the rows'."""
        if len(peaks) == 1:
            ((batch, peak),) = peaks.items()
            return cls(float(weights), peak / batch)
        row, anyway = np.polyfit(list(peaks), list(peaks.values()), 1)
        return cls(weights + float(anyway), float(row))

    def largest_batch(self, budget: float) -> int:
        return max(0, int((budget - self.fixed) / self.row))


def throughput(record: Record, figures: Sequence[Figures], budget: float) -> Table:
    """One line for each batch size and case that `generate` was run of; `budget` is in bytes."""
    run = [one for one in figures if "generate" in one.seconds]
    peaks: dict[str, dict[int, int]] = {}
    for one in run:
        if one.facts.generate_bytes is not None:
            peaks.setdefault(one.facts.name, {})[one.facts.batch] = one.facts.generate_bytes
    lines = []
    for one in run:
        seconds, batch = one.seconds["generate"], one.facts.batch
        memory = Memory.of(record.about["weight_bytes"], peaks[one.facts.name])
        lines.append(
            [
                *_case(one),
                str(one.facts.n_new),
                f"{batch / seconds.value:.3g} a second",
                _speedup(one.generate_to_unpruned if one.is_strategy else None),
                f"{(one.facts.generate_bytes or 0) / 1e9:.2f} GB",
                f"{memory.largest_batch(budget):,}",
            ]
        )
    return Table(
        [
            "batch",
            "strategy",
            "keep ratio",
            "visual tokens",
            "new tokens",
            "samples",
            "to unpruned",
            "peak memory",
            f"largest batch in {budget / 1e9:g} GB",
        ],
        lines,
    )


def _speedup(ratio: Median | None) -> str:
    """Of samples a second, from the ratio of times."""
    if ratio is None:
        return NOTHING
    return _ratio(Median(1 / ratio.value, 1 / ratio.high, 1 / ratio.low, ratio.n))
