"""Losses and their bounds: by hand, by simulation, and against independent formulas."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tokenprune.evals.stats import exact_bound
from tokenprune.evals.tune.bounds import CONFIDENCE, Loss


def loss_of(scores: Any, unpruned: Any, images: Any) -> Loss:
    return Loss.of(np.asarray(scores, float).tolist(), np.asarray(unpruned, float).tolist(), list(map(int, images)))


def test_independent_questions_by_hand() -> None:
    """With four of twenty lost and one won, the mean is 15 points or, with Agresti and Min's pairs, 300 / 22."""
    unpruned, pruned = [1.0] * 15 + [0.0] * 5, [1.0] * 11 + [0.0] * 4 + [1.0] + [0.0] * 4
    loss = loss_of(pruned, unpruned, range(20))
    assert (loss.points, loss.n, loss.n_images) == (15.0, 20, 20)
    assert (loss.found, loss.unit, loss.won) == (4.0, 1.0, 5.0)
    mean = 300 / 22
    assert loss.adjusted == pytest.approx(mean)
    squares = 4 * (100 - mean) ** 2 + (100 + mean) ** 2 + 15 * mean**2
    squares += 2 * (mean / 2) ** 2 + (50 - mean / 2) ** 2 + (50 + mean / 2) ** 2
    assert loss.error == pytest.approx((24 / 23 * squares) ** 0.5 / 22)
    assert loss.interval[0] < loss.adjusted - loss.error < loss.adjusted + loss.error < loss.upper < 40


def test_where_hardly_any_question_loses_the_bound_is_the_exact_one() -> None:
    """None of 100 lost: 1 - 0.05 ** (1 / 100), the rule of three. If two are won, two points less."""
    exact = 100 * (1 - 0.05**0.01)
    assert loss_of([1.0] * 100, [1.0] * 100, range(100)).upper == pytest.approx(exact)
    assert loss_of([1.0] * 100, [0.0] * 2 + [1.0] * 98, range(100)).upper == pytest.approx(exact - 2)


def test_equal_answers_prove_little_while_they_are_few() -> None:
    """If nothing changes on 30 questions, a loss of one point cannot be excluded. On 400 it can."""
    few, many = (loss_of([1.0] * n, [1.0] * n, range(n)) for n in (30, 400))
    assert few.points == many.points == 0
    assert not few.passes(1.0)
    assert many.passes(1.0)


def test_many_images_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processing all at once would take the square of their number, and gives the same bound."""
    n = 6000
    rng = np.random.default_rng(0)
    pruned, unpruned = (rng.random(n) < share for share in (0.6, 0.65))
    tracemalloc.start()
    assert loss_of(pruned, unpruned, range(n)).passes(10.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * n**2
    few = loss_of(pruned[:50], unpruned[:50], range(50))
    monkeypatch.setattr("tokenprune.evals.stats.DRAWN", 500)
    assert replace(few).interval == few.interval


def test_questions_about_one_image_count_less() -> None:
    rng = np.random.default_rng(0)
    unpruned = np.ones(200)
    by_image = np.repeat(rng.random(20) < 0.7, 10).astype(float)  # an image's questions are all right or all wrong
    alone, clustered = (loss_of(by_image, unpruned, images) for images in (range(200), np.repeat(range(20), 10)))
    assert clustered.points == alone.points
    assert clustered.error > 2 * alone.error


def test_losses_of_images_by_hand() -> None:
    """Of ten images with two questions, one loses both and two lose one."""
    unpruned, pruned = np.ones(20), np.ones(20)
    pruned[[0, 1, 2, 4]] = 0
    loss = loss_of(pruned, unpruned, np.repeat(range(10), 2))
    total, squares = 1 + 0.5 + 0.5 + 1, 1 + 0.25 + 0.25 + 1
    assert loss.unit == pytest.approx(squares / total)
    assert loss.found == pytest.approx(total**2 / squares - 1)
    nothing = loss_of(unpruned, unpruned, np.repeat(range(10), 2))
    assert nothing.upper == pytest.approx(100 * (1 - 0.05**0.1))  # as of ten questions
    everything = loss_of(np.zeros(20), unpruned, np.repeat(range(10), 2))
    assert everything.upper == pytest.approx(100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_images", "n_each", "share", "part"),
    [(20, 10, 0.05, 0.5), (50, 10, 0.05, 0.5), (20, 10, 0.1, 0.5), (8, 20, 0.05, 1.0), (200, 1, 0.025, 1.0)],
)
def test_images_that_rarely_lose_but_then_much(n_images: int, n_each: int, share: float, part: float) -> None:
    """The sample may contain none of them, which proves nothing about the next image."""
    rng, passed, draws = np.random.default_rng(5), 0, 600
    for _ in range(draws):
        lost = np.repeat(rng.random(n_images) < share, n_each) & (np.tile(np.arange(n_each), n_images) < part * n_each)
        passed += loss_of(~lost, np.ones(len(lost)), np.repeat(range(n_images), n_each)).passes(100 * share * part)
    assert passed / draws < 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("n_images", [60, 150])
def test_only_images_with_most_questions_lose(n_images: int) -> None:
    """They lose all of their questions at once, of which the other images give no hint."""
    rng, passed, draws = np.random.default_rng(6), 0, 600
    for _ in range(draws):
        counts = rng.choice([1, 1, 2, 4], n_images)
        images = np.repeat(range(n_images), counts)
        lost = ((rng.random(n_images) < 0.2) & (counts == 4))[images]
        passed += loss_of(~lost, np.ones(len(lost)), images).passes(100 * 0.2 / 2)  # half of the questions are theirs
    assert passed / draws < 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5
    assert passed / draws > 0.005


@pytest.mark.slow
@pytest.mark.parametrize("n_images", [60, 150])
def test_the_test_errs_at_most_as_often_as_it_says(n_images: int) -> None:
    """Of pairs whose true loss equals the margin, with images of different difficulty, at most 5 % may pass."""
    rng, passed, draws = np.random.default_rng(1), 0, 600
    for _ in range(draws):
        hard = np.repeat(rng.random(n_images) < 0.3, 4)
        unpruned = rng.random(4 * n_images) < np.where(hard, 0.5, 0.9)
        lost = rng.random(4 * n_images) < np.where(hard, 0.2, 0.05)
        # A right answer is lost with this probability, and a wrong one is never won.
        margin = 100 * (0.3 * 0.5 * 0.2 + 0.7 * 0.9 * 0.05)
        passed += loss_of(unpruned & ~lost, unpruned, np.repeat(range(n_images), 4)).passes(margin)
    assert passed / draws < 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5
    assert n_images == 60 or passed / draws > 0.01  # few images prove little, but the test must pass sometimes


@pytest.mark.slow
def test_partial_losses_are_bounded_as_often_as_it_says() -> None:
    """Distances from 0 to 1, most of them small and some near 1, with the margin as their true mean."""
    rng, passed, draws = np.random.default_rng(4), 0, 600
    for _ in range(draws):
        large = rng.random(200) < 0.03
        distance = np.where(large, rng.beta(6, 2, 200), rng.beta(0.5, 12, 200))
        margin = 100 * (0.03 * 6 / 8 + 0.97 * 0.5 / 12.5)
        passed += loss_of(1 - distance, np.ones(200), range(200)).passes(margin)
    assert passed / draws < 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5


def test_assurance_is_how_often_the_next_test_passes() -> None:
    """The probability predicted from 400 questions, averaged over draws, against the rate on 200 others."""
    rng, foretold, passed = np.random.default_rng(2), [], 0
    for _ in range(200):
        rate = rng.uniform(0.0, 0.1)
        first, second = (rng.random(n) < rate for n in (400, 200))
        loss = loss_of(~first, np.ones(400), range(400))
        foretold.append(loss.assurance(8.0, 200))
        passed += loss_of(~second, np.ones(200), range(200)).passes(8.0)
    assert np.mean(foretold) == pytest.approx(passed / 200, abs=0.08)


def test_as_many_questions_as_it_says_are_needed() -> None:
    rate, margin = 0.02, 4.0
    many = np.arange(10_000) % 50 == 0  # two in a hundred are lost
    needed = loss_of(~many, np.ones(10_000), range(10_000)).questions_needed(margin)
    assert needed is not None
    rng = np.random.default_rng(3)
    passed = [loss_of(rng.random(needed) >= rate, np.ones(needed), range(needed)).passes(margin) for _ in range(120)]
    assert np.mean(passed) == pytest.approx(0.83, abs=0.12)
    assert loss_of(~many, np.ones(10_000), range(10_000)).questions_needed(2.0) is None


def test_a_loss_next_to_the_margin_needs_very_many() -> None:
    """It needs more questions than would fit into memory one by one."""
    needed = loss_of(np.full(4000, 0.99 + 1e-9), np.ones(4000), range(4000)).questions_needed(1.0)
    assert needed is not None
    assert needed > 10**12


@pytest.mark.parametrize("n", [1, 30, 333])
def test_as_many_may_be_lost_as_the_exact_bound_allows(n: int) -> None:
    loss = loss_of(np.ones(n), np.ones(n), range(n))
    for margin in (0.5, 1.0, 5.0, 40.0, 99.0):
        most = loss._most(margin, n)
        assert most == -1 or 100 * exact_bound(float(most), n, CONFIDENCE) <= margin
        assert 100 * exact_bound(most + 1.0, n, CONFIDENCE) > margin
    assert loss._most(100.0, n) == n
