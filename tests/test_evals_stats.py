"""Intervals against published values and against their own promise: to cover the truth 95 times in 100."""

import math

import numpy as np
import pytest

from tokenprune.evals.stats import interval, paired


def alone(n: int) -> range:
    """Every question about a picture of its own."""
    return range(n)


def test_wilson() -> None:
    assert interval([1.0] * 8 + [0.0] * 2, alone(10)) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_wilson_does_not_collapse_at_the_ends() -> None:
    assert interval([1.0] * 20, alone(20))[0] == pytest.approx(0.8389, abs=1e-4)


def test_questions_that_agree_count_once() -> None:
    """Five questions about a picture that are all right or all wrong tell as much as one."""
    once = interval([1.0, 0.0] * 10, alone(20))
    five_times = interval(np.repeat([1.0, 0.0] * 10, 5).tolist(), np.repeat(alone(20), 5).tolist())
    assert five_times == pytest.approx(once, abs=0.01)
    assert interval([1.0, 0.0] * 50, alone(100))[0] > once[0] + 0.05


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "soft"])
def test_intervals_cover_the_truth_though_pictures_differ(binary: bool) -> None:
    """Pictures are easy or hard, and have 1 to 9 questions; intervals that took questions as independent would not."""
    rng = np.random.default_rng(0)
    covered = {"pictures": 0, "questions": 0}
    for _ in range(100):
        difficulty, counts = rng.beta(0.7, 0.7, size=60), rng.integers(1, 10, size=60)
        pictures = np.repeat(np.arange(60), counts)
        scores = (rng.random(len(pictures)) < difficulty[pictures]).astype(float)
        if not binary:
            scores = scores * 0.9 + 0.05
        for name, drawn in ("pictures", pictures), ("questions", np.arange(len(pictures))):
            low, high = interval(scores.tolist(), drawn.tolist())
            covered[name] += low <= 0.5 <= high
    assert covered["pictures"] >= 90
    assert covered["questions"] <= 80


def test_one_soft_score_has_no_spread() -> None:
    assert interval([0.6], [0]) == (0.6, 0.6)


def test_no_scores() -> None:
    with pytest.raises(ValueError, match="no scores"):
        interval([], [])


def test_difference_is_paired() -> None:
    baseline = [1.0, 0.0] * 50
    worse = [0.0, 0.0] * 10 + [1.0, 0.0] * 40
    result = paired(worse, baseline, alone(100))
    assert result.difference == pytest.approx(-0.1)
    assert result.interval[0] < -0.1 < result.interval[1] < 0
    assert result.retention == pytest.approx(0.8)
    assert result.retention_interval[0] < 0.8 < result.retention_interval[1] < 1
    assert (result.lost, result.won) == (10, 0)
    assert result.p == pytest.approx(2 * 0.5**10)  # ten of ten coins the same side
    assert paired(baseline, worse, alone(100)).difference == pytest.approx(0.1)


def test_soft_scores_have_no_mcnemar() -> None:
    assert paired([0.3, 1.0], [1.0, 1.0], alone(2)).p is None


def test_a_baseline_that_is_always_wrong() -> None:
    result = paired([1.0, 0.0], [0.0, 0.0], alone(2))
    assert result.difference == 0.5
    assert not math.isfinite(result.retention)


def test_difference_needs_the_same_questions() -> None:
    with pytest.raises(ValueError, match="same questions"):
        paired([1.0], [1.0, 0.0], alone(2))
