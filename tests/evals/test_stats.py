"""Statistics and the overlap of boxes."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from tokenprune.evals.boxes import iou, within
from tokenprune.evals.stats import FEW, bootstrap_interval, interval, paired
from tokenprune.evals.tasks.base.metric import Metric, Ratio


def alone(n: int) -> range:
    """Return image numbers for questions about different images."""
    return range(n)


def test_wilson() -> None:
    assert interval([1.0] * 8 + [0.0] * 2, alone(10)) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_wilson_does_not_collapse_at_the_ends() -> None:
    assert interval([1.0] * 20, alone(20))[0] == pytest.approx(0.8389, abs=1e-4)


def test_questions_that_agree_count_once() -> None:
    """Five questions about an image that are all right or all wrong carry as much information as one."""
    once = interval([1.0, 0.0] * 10, alone(20))
    five_times = interval(np.repeat([1.0, 0.0] * 10, 5).tolist(), np.repeat(alone(20), 5).tolist())
    assert five_times == pytest.approx(once, abs=0.01)
    assert interval([1.0, 0.0] * 50, alone(100))[0] > once[0] + 0.05


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "soft"])
def test_intervals_cover_the_truth_though_images_differ(binary: bool) -> None:
    """Images are easy or hard and have 1 to 9 questions. Intervals that treat questions as independent would not."""
    rng = np.random.default_rng(0)
    covered = {"images": 0, "questions": 0}
    for _ in range(100):
        difficulty, counts = rng.beta(0.7, 0.7, size=60), rng.integers(1, 10, size=60)
        images = np.repeat(np.arange(60), counts)
        scores = (rng.random(len(images)) < difficulty[images]).astype(float)
        if not binary:
            scores = scores * 0.9 + 0.05
        for name, drawn in ("images", images), ("questions", np.arange(len(images))):
            low, high = interval(scores.tolist(), drawn.tolist())
            covered[name] += low <= 0.5 <= high
    assert covered["images"] >= 90
    assert covered["questions"] <= 80


def test_one_image_says_nothing_about_others() -> None:
    """Whatever the number of questions about it: if all are right, they count as one."""
    assert np.isnan(interval([0.6, 0.4], [0, 0])).all()
    assert np.isnan(paired([0.0, 1.0], [1.0, 1.0], [0, 0]).interval).all()
    assert interval([1.0] * 100, [0] * 100) == interval([1.0], [0])


def test_equal_answers_leave_a_difference_possible() -> None:
    """The interval ends where the probability of no difference in that many images is 0.025."""
    low, high = paired([1.0, 0.0] * 70, [1.0, 0.0] * 70, alone(140)).interval
    assert -low == high == pytest.approx(1 - 0.025 ** (1 / 140))
    _, wider = paired([1.0, 0.0] * 70, [1.0, 0.0] * 70, np.repeat(range(70), 2).tolist()).interval
    assert wider == pytest.approx(1 - 0.025 ** (1 / 70))


def losing(n_lost: int, n: int = 100) -> list[float]:
    return [0.0] * n_lost + [1.0] * (n - n_lost)


def test_a_question_that_differs_narrows_nothing() -> None:
    """None, one or two of a hundred are lost: the bootstrap alone would only redraw these."""
    found = [paired(losing(n), [1.0] * 100, alone(100)).interval for n in range(FEW)]
    for n, (low, high) in enumerate(found):
        assert low == pytest.approx(-beta.ppf(0.975, n + 1, 100 - n))
        assert high >= 1 - 0.025**0.01 - n / 100 - 1e-9  # of a hundred, none is won and n are lost
    all_lost = paired([0.0] * 100, [1.0] * 100, alone(100)).interval
    assert all_lost == (-1, pytest.approx(-(0.025**0.01)))


@pytest.mark.parametrize("share", [0.02, 0.032, 0.045])
def test_intervals_of_differences_cover_rare_losses(share: float) -> None:
    rng = np.random.default_rng(3)
    draws = [paired(losing(rng.binomial(100, share)), [1.0] * 100, alone(100)) for _ in range(300)]
    assert np.mean([low <= -share <= high for low, high in (one.interval for one in draws)]) > 0.95
    assert np.mean([low <= 1 - share <= high for low, high in (one.relative_interval for one in draws)]) > 0.95


def test_a_few_images_that_lose_all_their_questions_are_a_few() -> None:
    together = paired(losing(20), [1.0] * 100, np.repeat(range(10), 10).tolist()).interval
    assert together[0] == pytest.approx(-beta.ppf(0.975, 3, 8))


def test_a_relative_accuracy_is_as_sure_as_the_difference() -> None:
    """Half of the answers are right, so the interval of the relative accuracy is twice as wide."""
    equal = paired([1.0, 0.0] * 50, [1.0, 0.0] * 50, alone(100))
    assert equal.relative == 1
    assert equal.relative_interval == pytest.approx([1 + 2 * bound for bound in equal.interval])
    assert paired([0.0] * 100, [1.0] * 100, alone(100)).relative_interval == (0, pytest.approx(1 - 0.025**0.01))


def test_draws_that_are_all_the_same_give_no_interval() -> None:
    assert all(map(math.isnan, interval([0.3] * 20, alone(20))))
    right = Metric.of(Ratio([1.0, 0.0] * 10, [1.0, 0.0] * 10), Ratio.mean([1.0] * 20), weight=0.5)
    assert right.value == 1
    assert all(map(math.isnan, right.interval(alone(20))))


def test_no_scores() -> None:
    with pytest.raises(ValueError, match="no scores"):
        interval([], [])


def test_difference_is_paired() -> None:
    baseline = [1.0, 0.0] * 50
    worse = [0.0, 0.0] * 10 + [1.0, 0.0] * 40
    result = paired(worse, baseline, alone(100))
    assert result.difference == pytest.approx(-0.1)
    assert result.interval[0] < -0.1 < result.interval[1] < 0
    assert result.relative == pytest.approx(0.8)
    assert result.relative_interval[0] < 0.8 < result.relative_interval[1] < 1
    assert (result.lost, result.won) == (10, 0)
    assert result.p == pytest.approx(2 * 0.5**10)  # ten of ten coins on the same side
    assert paired(baseline, worse, alone(100)).difference == pytest.approx(0.1)


def test_soft_scores_have_no_mcnemar() -> None:
    assert paired([0.3, 1.0], [1.0, 1.0], alone(2)).p is None


def test_the_bootstrap_draws_as_scipy_does() -> None:
    scores = np.random.default_rng(0).random(300)
    assert interval(scores.tolist(), alone(300)) == pytest.approx(bootstrap_interval((scores,), np.mean), abs=1e-12)


def test_a_baseline_that_is_always_wrong() -> None:
    result = paired([1.0, 0.0], [0.0, 0.0], alone(2))
    assert result.difference == 0.5
    assert not math.isfinite(result.relative)


def test_difference_needs_the_same_questions() -> None:
    with pytest.raises(ValueError, match="same questions"):
        paired([1.0], [1.0, 0.0], alone(2))


def test_intervals_of_ratios_cover_the_truth() -> None:
    """F1 = 2 sum(right) / sum(said + true) for a model that is right about 3 in 4 images, on 60 images with 4
    questions."""
    rng, covered = np.random.default_rng(1), 0
    images = np.repeat(np.arange(60), 4)
    truth = np.tile([1.0, 0.0], 120)
    expected = 2 * 0.75 / (0.75 + 0.25 + 1)
    for _ in range(100):
        said = np.where(np.repeat(rng.random(60) < 0.75, 4), truth, 1 - truth)
        metric = Metric.of(Ratio((truth * said).tolist(), ((truth + said) / 2).tolist()))
        low, high = metric.interval(images.tolist())
        assert low < metric.value < high
        covered += low <= expected <= high
    assert covered >= 90


def test_a_sum_of_means_is_as_sure_as_its_parts() -> None:
    """100 times the sum of a mean and the same mean over groups of one has an interval twice as wide as one of them."""
    points = [0.3, 0.9] * 30
    once, groups = Ratio.mean(points), [str(n) for n in range(60)]
    low, high = Metric.of(once).interval(alone(60))
    summed = Metric.of(once, Ratio.mean_of_groups(points, groups, min), weight=100.0)
    assert summed.value == pytest.approx(200 * 0.6)
    assert summed.points == ()
    assert summed.interval(alone(60)) == pytest.approx((200 * low, 200 * high))


def test_a_ratio_to_nothing() -> None:
    """A model that never says yes has a precision of 0 without an interval. Draws without a category are left out."""
    never = Metric.of(Ratio([0.0] * 5, [0.0] * 5))
    assert never.value == 0
    assert all(map(math.isnan, never.interval(alone(5))))
    rare = Metric.of(*Ratio.mean([0.0, 0.5, 0.5, 1.0]).of_each("baaa").values(), weight=0.5)
    assert rare.value == pytest.approx((2 / 3 + 0) / 2)
    assert all(map(math.isfinite, rare.interval(alone(4))))
    assert all(map(math.isnan, Metric.of(*rare.ratios).interval([0] * 4)))  # one image says nothing about others


# How boxes overlap, and boxes in a window.


def test_iou() -> None:
    assert iou((0.0, 0.0, 2.0, 2.0), (0.0, 0.0, 2.0, 2.0)) == 1
    assert iou((0.0, 0.0, 2.0, 2.0), (1.0, 0.0, 3.0, 2.0)) == pytest.approx(1 / 3)
    assert iou((0.0, 0.0, 1.0, 1.0), (2.0, 2.0, 3.0, 3.0)) == 0


def test_fractions_of_a_window() -> None:
    assert within((0.0, 0.0, 200.0, 100.0), (0.1, 0.2, 0.5, 1.0)) == pytest.approx((20, 20, 100, 100))
    assert within((0.0, -50.0, 200.0, 150.0), (0.0, 0.25, 1.0, 0.75)) == pytest.approx((0.0, 0.0, 200.0, 100.0))
