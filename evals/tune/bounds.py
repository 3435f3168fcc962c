"""How many points of accuracy pruning loses, and how certain that is: a paired non-inferiority test.

The loss that is not exceeded with 95 % confidence is the bias-corrected and accelerated (BCa) bootstrap bound on the
mean difference of paired scores. Three things keep it honest here:

- Images are resampled, each with all its questions, because questions about one image are not independent.
- Half an observation is added to each of the four outcomes of a pair (right or wrong, before and after), as Agresti and
  Min propose (https://doi.org/10.1002/sim.1832). Without it, 30 questions that all got the same answer would prove that
  nothing can ever be lost.
- It is never below a bound on what images lose, minus what they win: if two or three lose, a bootstrap does not know
  how many more might have. With one question per image, that is the exact binomial bound on the share that loses. With
  several, losses differ in size, see `as_equal_losses`, and the bound is as if one more image lost all, with as many
  questions as the image of a random question has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import betabinom, binom, norm
from statsmodels.stats.power import TTestPower

from tokenprune.evals.stats import as_equal_losses, bootstrap_interval, exact_bound, whole_image

CONFIDENCE = 0.95
#: The chance of passing that `questions_needed` plans for.
POWER = 0.8
#: Agresti and Min's added pairs: how many questions each is worth, and the points that it loses.
ADDED = ((0.5, 0.0), (0.5, 0.0), (0.5, 50.0), (0.5, -50.0))
#: The factor by which `questions_needed` raises its estimate, and the number of images from which it need not, because
#: the mean is normally distributed.
STEP, MANY = 1.05, 10**7


@dataclass(frozen=True)
class Loss:
    """Points of accuracy that pruning loses on paired questions: positive is worse.

    points: the mean. n, n_images: how many questions about how many images.
    won: points of the questions that got better, per question.
    unit, found: the losses as equal ones, see `as_equal_losses`.
    images: for each image and each added pair, how many questions it has and how many points they lose.
    """

    points: float
    n: int
    n_images: int
    won: float
    unit: float
    found: float
    images: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, scores: Sequence[float], unpruned: Sequence[float], images: Sequence[int]) -> Loss:
        """The loss of `scores` against those of the unpruned model on the same questions; `images` are the numbers of
        the questions' images."""
        lost = 100 * (np.asarray(unpruned, float) - np.asarray(scores, float))
        numbers = np.unique(np.asarray(images), return_inverse=True)[1]
        counts, sums = np.bincount(numbers), np.bincount(numbers, weights=lost)
        by_image = tuple(zip(counts.astype(float).tolist(), sums.tolist(), strict=True))
        won = float(np.clip(-lost, 0, None).mean())
        lost_by_image = np.bincount(numbers, weights=np.clip(lost, 0, None)) / 100
        unit, found = as_equal_losses(lost_by_image, counts, whole_image(counts))
        return cls(float(lost.mean()), len(lost), len(counts), won, unit, found, (*by_image, *ADDED))

    @cached_property
    def adjusted(self) -> float:
        """The mean, including the added pairs."""
        counts, sums = np.asarray(self.images).T
        return float(sums.sum() / counts.sum())

    @cached_property
    def error(self) -> float:
        """The standard error of `adjusted`, clustered by image."""
        counts, sums = np.asarray(self.images).T
        residuals = sums - self.adjusted * counts
        n = len(counts)
        return float(math.sqrt(n / (n - 1) * (residuals**2).sum()) / counts.sum())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The lower and upper bounds, each with 95 % confidence."""
        counts, sums = np.asarray(self.images).T
        low, high = bootstrap_interval(
            (sums, counts),
            lambda sums, counts, axis=-1: sums.sum(axis) / counts.sum(axis),
            level=2 * CONFIDENCE - 1,
            method="BCa",
        )
        floor = 100 * self.unit * exact_bound(self.found, self.n_images, CONFIDENCE) - self.won
        return low, max(high, floor)

    @property
    def upper(self) -> float:
        """The loss that is not exceeded with 95 % confidence."""
        return self.interval[1]

    def passes(self, margin: float) -> bool:
        """Whether the loss is at most `margin` with 95 % confidence."""
        return self.upper <= margin

    def assurance(self, margin: float, n_next: int) -> float:
        """The probability, given this loss, that a test on `n_next` other questions passes: by the normal distribution
        of its mean or the beta-binomial distribution of how many images lose, whichever is lower."""
        next_error = self.error * math.sqrt((self.n + 2) / (n_next + 2))
        most = margin - float(norm.ppf(CONFIDENCE)) * next_error
        by_mean = float(norm.cdf((most - self.adjusted) / math.hypot(self.error, next_error)))
        n_images = math.ceil(n_next * self.n_images / self.n)
        found, left = self.found + 0.5, self.n_images - self.found + 0.5
        return min(by_mean, float(betabinom.cdf(self._most(margin, n_images), n_images, found, left)))

    def questions_needed(self, margin: float) -> int | None:
        """About how many questions would pass the test in four of five cases if this loss is the true one. None if no
        number would, because it is not below the margin."""
        if self.points >= margin:
            return None
        deviation = self.error * math.sqrt(self.n + 2)
        needed = TTestPower().solve_power(
            effect_size=(margin - self.points) / deviation, alpha=1 - CONFIDENCE, power=POWER, alternative="larger"
        )
        n_images = math.ceil(float(np.ravel(needed)[0]) * self.n_images / self.n)
        share = self.found / self.n_images
        while n_images < MANY and binom.cdf(self._most(margin, n_images), n_images, share) < POWER:
            n_images = math.ceil(STEP * n_images)
        return math.ceil(n_images * self.n / self.n_images)

    def _most(self, margin: float, n_images: int) -> int:
        """How many of `n_images` may lose `unit`, if the same share gets better as here; -1 if not even zero may."""
        share = (margin + self.won) / 100 / self.unit
        # The most whose `exact_bound` is not above this share: if that is the true one, so few occur in at most 5 % of
        # cases.
        return n_images if share >= 1 else int(binom.ppf(1 - CONFIDENCE, n_images, share)) - 1
