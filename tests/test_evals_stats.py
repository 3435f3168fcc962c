"""Intervals against published values and against their own promise: to cover the truth 95 times in 100."""

import numpy as np
import pytest

from tokenprune.evals.stats import difference, interval


def test_wilson() -> None:
    assert interval([1.0] * 8 + [0.0] * 2) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_wilson_does_not_collapse_at_the_ends() -> None:
    assert interval([1.0] * 20)[0] == pytest.approx(0.8389, abs=1e-4)


def test_bootstrap_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        low, high = interval(rng.choice([0.0, 0.3, 0.6, 1.0], size=100).tolist())
        covered += low <= 0.475 <= high
    assert covered >= 52


def test_one_soft_score_has_no_spread() -> None:
    assert interval([0.6]) == (0.6, 0.6)


def test_no_scores() -> None:
    with pytest.raises(ValueError, match="no scores"):
        interval([])


def test_difference_is_paired() -> None:
    baseline = [1.0, 0.0] * 50
    worse = [0.0, 0.0] * 10 + [1.0, 0.0] * 40
    result = difference(worse, baseline)
    assert result.mean == pytest.approx(-0.1)
    assert result.interval[0] < -0.1 < result.interval[1] < 0
    assert difference(baseline, worse).mean == pytest.approx(0.1)


def test_difference_needs_the_same_questions() -> None:
    with pytest.raises(ValueError, match="same questions"):
        difference([1.0], [1.0, 0.0])
