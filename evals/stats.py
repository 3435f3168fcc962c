"""Confidence intervals of accuracies, and of differences between two accuracies on the same questions.

Questions about one image are not independent, because a hard image makes all of them hard. The bootstrap therefore
resamples images, each with all its questions, and the width of an interval depends on the number of images. `images`
holds the number of each score's image.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy.stats import DegenerateDataWarning, beta, bootstrap
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

Interval = tuple[float, float]
Array = np.ndarray

RESAMPLES = 2000
SEED = 0
TAIL = 0.025  # below a 95 % interval, and above it
#: Values that scipy draws at once: BCa leaves out each in turn, which is as many as their square.
DRAWN = 2**22
#: Of fewer images that lose, a bootstrap does not know how many more might: it draws the same few again.
FEW = 10
#: Means of equal numbers may differ by as much.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Paired:
    """Scores compared with those of a baseline on the same questions.

    difference: the mean of (scores - baseline).
    interval: its 95 % interval, from the bootstrap. Where fewer than FEW images lose, the bootstrap's lower end is too
        high: it draws the same few losses again, and none at all if there are none. The lower end is then at most the
        wins minus an exact bound of the losses, see `_widened`. The same holds for the upper end where few images win.
        So the interval has a width even if no score differs.
    relative, relative_interval: the mean score divided by the baseline's, NaN if that is 0. Where an end of `interval`
        was moved, so is this one's.
    p: McNemar's exact test for binary scores, which treats questions as independent; None for other scores.
    lost, won: the numbers of questions with a lower and with a higher score than under the baseline.
    """

    difference: float
    interval: Interval
    relative: float
    relative_interval: Interval
    p: float | None
    lost: int
    won: int
    n: int


def interval(scores: Sequence[float], images: Sequence[int]) -> Interval:
    """Return the 95 % interval of the mean.

    Scores of 0 and 1 get Wilson's interval, because it has a width even if all are right or all are wrong. Its n is not
    the number of questions, which depend on each other where they share an image, but that of independent questions
    with which the accuracy would vary as much (`_design_effect`).

    Other scores get the bootstrap interval. It is NaN for a single image and for equal scores: every draw gives the
    same mean, which says nothing about other images.
    """
    if not scores:
        raise ValueError("no scores: an interval needs at least one")
    if set(scores) <= {0, 1}:
        n = len(scores) / _design_effect(np.asarray(scores, float), np.asarray(images))
        bounds: Any = proportion_confint(sum(scores) / len(scores) * n, n, method="wilson")
        low, high = bounds
        return float(low), float(high)
    sums, counts = _by_image(np.asarray(images), np.asarray(scores, float), np.ones(len(scores)))
    return with_a_width(_bootstrap(sums, counts))


def with_a_width(interval: Interval) -> Interval:
    """Return a bootstrap's interval; NaN if every draw gave the same, which tells nothing of other images."""
    return interval if interval[1] - interval[0] > ROUNDING else (float("nan"), float("nan"))


def interval_of_ratios(
    ratios: Sequence[tuple[Sequence[float], Sequence[float], float]], images: Sequence[int]
) -> Interval:
    """Return the bootstrap's 95 % interval of a weighted sum of ratios, each (parts, wholes, weight).

    A ratio is sum(parts) / sum(wholes), over one number per question. Draws in which a ratio divides by zero are left
    out; NaN if all are.
    """
    parts, wholes, weights = (np.asarray(values, float) for values in zip(*ratios, strict=True))
    sums = np.stack(_by_image(np.asarray(images), *parts, *wholes), axis=-1)
    if len(sums) < 2:
        return float("nan"), float("nan")
    part, whole = np.split(_resampled(sums), 2, axis=-1)
    values = np.asarray(_ratio(part, whole)) @ weights
    if not np.isfinite(values).any():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, [TAIL, 1 - TAIL])
    return float(low), float(high)


def paired(scores: Sequence[float], baseline: Sequence[float], images: Sequence[int]) -> Paired:
    """Compare two runs on the same questions in the same order."""
    if len(scores) != len(baseline):
        raise ValueError(f"{len(scores)} and {len(baseline)} scores; a paired comparison needs the same questions")
    own, base, differences = (np.asarray(x, float) for x in (scores, baseline, np.subtract(scores, baseline)))
    own_sums, base_sums, lost_sums, won_sums, counts = _by_image(
        np.asarray(images), own, base, np.clip(-differences, 0, 1), np.clip(differences, 0, 1), np.ones(len(own))
    )
    binary = set(scores) | set(baseline) <= {0, 1}
    lost, won = int((differences < 0).sum()), int((differences > 0).sum())
    test: Any = mcnemar([[0, lost], [won, 0]], exact=True)
    drawn = _bootstrap(won_sums - lost_sums, counts)
    interval = _widened(drawn, lost_sums, won_sums, counts)
    low, high = _bootstrap(own_sums, base_sums) if base.any() else (float("nan"), float("nan"))
    if interval[0] < drawn[0] and base.any():
        low = min(low, max(0.0, 1 + interval[0] / float(base.mean())))
    if interval[1] > drawn[1] and base.any():
        high = max(high, 1 + interval[1] / float(base.mean()))
    return Paired(
        difference=float(differences.mean()),
        interval=interval,
        relative=float(_ratio(own.sum(), base.sum())),
        relative_interval=(low, high),
        p=float(test.pvalue) if binary else None,
        lost=lost,
        won=won,
        n=len(scores),
    )


def _widened(drawn: Interval, lost: Array, won: Array, counts: Array) -> Interval:
    """Return the bootstrap's interval of a difference, `drawn`, moved outwards where few images lose or win; NaN for a
    single image.

    lost, won: the sum of each image's losses and of its wins. counts: the number of its questions.

    An end is moved to what the images might lose at most, with 97.5 % confidence, if the wins stay what they are. The
    bound is Clopper and Pearson's for a share of equal losses, so losses that differ in size are first expressed as a
    number of equal ones (`as_equal_losses`). For that, one more image is assumed to lose: as much as those that changed
    do on average, or a whole image (`whole_image`) if none changed.
    """
    if len(counts) < 2:
        return drawn

    changed = (lost + won)[(lost > 0) | (won > 0)]
    another = float(changed.mean()) if len(changed) else whole_image(counts)

    def most(parts: Array, others: Array) -> float:
        unit, n_equal = as_equal_losses(parts, counts, another)
        return min(1.0, unit * exact_bound(n_equal, len(counts), 1 - TAIL) - float(others.sum() / counts.sum()))

    low, high = drawn
    return (
        min(low, -most(lost, won)) if (lost > 0).sum() < FEW else low,
        max(high, most(won, lost)) if (won > 0).sum() < FEW else high,
    )


def whole_image(counts: Array) -> float:
    """Return how many questions the image of a random question has, given the number of each image."""
    return float((counts**2).sum() / counts.sum())


def as_equal_losses(lost: Array, counts: Array, another: float) -> tuple[float, float]:
    """Return (unit, n_equal): the losses amount to `n_equal` images that each lose `unit` times an average image's
    number of questions. With one question per image, lost or not, `unit` is 1 and `n_equal` the number of lost ones.

    lost: each image's losses, from 0 to the number of its questions, which `counts` holds. another: what one more image
    would lose.

    The idea is Fay and Feuer's for weighted counts
    (https://doi.org/10.1002/(SICI)1097-0258(19970415)16:7<791::AID-SIM500>3.0.CO;2-#): with that one more image, equal
    losses are found with the same sum and the same sum of squares. `exact_bound` adds one loss itself, so it is not in
    `n_equal`. Their counts are Poisson; here they are a share of the images.
    """
    sizes = np.append(lost, another) / counts.mean()
    unit = float((sizes**2).sum() / sizes.sum())
    return unit, float(sizes.sum()) / unit - 1


def exact_bound(count: float, n: int, confidence: float) -> float:
    """Return the share that is not exceeded with this confidence if `found` of `n` were found (Clopper and Pearson)."""
    return 1.0 if count >= n else float(beta.ppf(confidence, count + 1, n - count))


def _by_image(images: Array, *values: Array) -> list[Array]:
    """Sum each of the `values` over the questions of each image."""
    _, index = np.unique(images, return_inverse=True)
    return [np.bincount(index, weights=value) for value in values]


def _design_effect(scores: Array, images: Array) -> float:
    """Return the ratio of the variance of the mean to that of as many independent questions.

    It is at least 1, so that questions which happen to differ within an image do not narrow the interval.
    """
    if not scores.any() or scores.all():  # nothing says how alike the questions about an image are
        return len(scores) / len(np.unique(images))
    independent = scores.var(ddof=1) / len(scores)
    (residuals,) = _by_image(images, scores - scores.mean())
    n_images = len(residuals)
    if n_images == 1:
        return float(len(scores))
    clustered = n_images / (n_images - 1) * (residuals**2).sum() / len(scores) ** 2
    return max(1.0, float(clustered / independent))


def _ratio(parts: Array | np.floating, wholes: Array | np.floating) -> Array | np.floating:
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of images on which the baseline scores 0
        return parts / wholes


def _bootstrap(sums: Array, counts: Array) -> Interval:
    """The bootstrap's 95 % interval of sum(sums) / sum(counts), NaN for a single image or if a draw gives NaN."""
    if len(sums) < 2:
        return float("nan"), float("nan")
    parts, wholes = _resampled(np.stack([sums, counts], axis=-1)).T
    with np.errstate(invalid="ignore"):  # between two draws in which the baseline scores 0
        low, high = np.quantile(_ratio(parts, wholes), [TAIL, 1 - TAIL])
    return float(low), float(high)


def _resampled(sums: Array) -> Array:
    """The sums over each of the bootstrap's resamples, (resamples, ...), of numbers per image, (images, ...)."""
    parts = np.array_split(_drawn(len(sums)), 20)  # as floats, they take eight times the memory
    return np.concatenate([part.astype(float) @ sums for part in parts])


@lru_cache(maxsize=4)
def _drawn(n_images: int) -> Array:
    """How often each image is drawn in each of the bootstrap's resamples, (resamples, images).

    They are the draws of scipy's `bootstrap`, made once for the hundreds of comparisons of a page.
    """
    generator = np.random.default_rng(SEED)
    drawn = np.empty((RESAMPLES, n_images), np.uint8)  # drawing one image 256 times is out of the question
    for resample in drawn:
        resample[:] = np.bincount(generator.integers(0, n_images, n_images), minlength=n_images)
    return drawn


def bootstrap_interval(
    samples: Sequence[Array],
    statistic: Callable[..., Any],
    n_resamples: int = RESAMPLES,
    *,
    level: float = 1 - 2 * TAIL,
    method: Literal["percentile", "BCa"] = "percentile",
) -> Interval:
    """Return scipy's bootstrap interval of `statistic`, which takes an `axis`; NaN where draws give NaN.

    Several `samples` are paired: they are resampled together. BCa is corrected for bias and accelerated.
    """
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)  # a draw with a baseline of 0: the interval is NaN
        result = bootstrap(
            tuple(samples),
            statistic,
            paired=len(samples) > 1,
            vectorized=True,
            confidence_level=level,
            n_resamples=n_resamples,
            batch=max(1, DRAWN // len(samples[0])),
            method=method,
            rng=np.random.default_rng(SEED),
        )
    low, high = result.confidence_interval
    return float(low), float(high)
