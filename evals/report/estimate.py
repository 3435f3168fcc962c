"""A measured number with its interval, and its comparison with a published one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot, isfinite

from tokenprune.evals.report.table import NOTHING
from tokenprune.evals.stats import Interval

AGREES, HIGHER, LOWER = "agrees", "higher", "lower"


@dataclass(frozen=True)
class Estimate:
    """A measured number with its 95 % interval, in the table's unit; NaN where there is none."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, interval: Interval, scale: float = 1.0) -> Estimate:
        return cls(scale * value, scale * interval[0], scale * interval[1])

    @classmethod
    def total(cls, parts: Iterable[Estimate], share: float = 1.0) -> Estimate:
        """Return the sum of independent estimates, times `share`."""
        parts = list(parts)
        value = sum(part.value for part in parts)
        low = value - hypot(*(part.value - part.low for part in parts))
        high = value + hypot(*(part.high - part.value for part in parts))
        return cls(share * value, share * low, share * high)

    def verdict(self, published: float | None) -> str | None:
        """Return whether the published number is within the interval, and if not, where the measured one is; None if
        one of them is missing."""
        if published is None or not isfinite(self.low):
            return None
        return HIGHER if self.low > published else LOWER if self.high < published else AGREES

    def __str__(self) -> str:
        bounds = f" [{self.low:.1f}, {self.high:.1f}]" if isfinite(self.low) else ""
        return f"{self.value:.1f}{bounds}"

    def minus(self, published: float | None) -> str:
        if published is None:
            return NOTHING
        bounds = f" [{self.low - published:+.1f}, {self.high - published:+.1f}]" if isfinite(self.low) else ""
        return f"{self.value - published:+.1f}{bounds}"
