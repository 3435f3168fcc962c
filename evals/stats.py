"""How sure an accuracy is, and how sure a difference of two accuracies on the same questions is.

All treat questions as independent; several questions on one picture are not quite, so the true intervals are a
little wider.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap
from statsmodels.stats.proportion import proportion_confint

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Mean of (scores - baseline) on the same questions, with its 95 % interval."""

    mean: float
    interval: Interval


def interval(scores: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the 95 % interval of the mean: Wilson's for scores of 0 and 1, else a bootstrap one."""
    if not scores:
        raise ValueError("no scores: an interval needs at least one")
    if _binary(scores):
        low, high = proportion_confint(sum(scores), len(scores), method="wilson")
        return float(low), float(high)
    return _bootstrap(scores, seed)


def difference(scores: Sequence[float], baseline: Sequence[float], *, seed: int = 0) -> Difference:
    """Compare two runs on the same questions in the same order."""
    if len(scores) != len(baseline):
        raise ValueError(f"{len(scores)} and {len(baseline)} scores; a paired comparison needs the same questions")
    differences = np.subtract(scores, baseline)
    return Difference(float(differences.mean()), _bootstrap(differences.tolist(), seed))


def _binary(scores: Sequence[float]) -> bool:
    return set(scores) <= {0, 1}


def _bootstrap(scores: Sequence[float], seed: int) -> Interval:
    if len(scores) < 2:
        return scores[0], scores[0]
    rng = np.random.default_rng(seed)
    result = bootstrap((np.asarray(scores),), np.mean, method="percentile", n_resamples=2000, rng=rng)
    low, high = result.confidence_interval
    return float(low), float(high)
