"""The value of a published metric on a set of answers, and its confidence interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenprune.evals import stats


class Ratio(NamedTuple):
    """A ratio of two sums over the questions of a set; `parts` and `wholes` hold one number per question."""

    parts: Sequence[float]
    wholes: Sequence[float]
    weight: float = 1.0

    @classmethod
    def mean(cls, points: Sequence[float]) -> "Ratio":
        return cls(points, [1.0] * len(points))

    @classmethod
    def mean_of_groups(
        cls, points: Sequence[float], groups: Sequence[str], worth: Callable[[list[float]], float]
    ) -> "Ratio":
        """Return the mean over groups of `worth`, a function of the points of a group's questions in their order.

        The first question of a group carries its value; the others have a part and a whole of 0.
        """
        of_group: dict[str, list[float]] = {}
        for group, point in zip(groups, points, strict=True):
            of_group.setdefault(group, []).append(point)
        first = {group: number for number, group in reversed(list(enumerate(groups)))}
        is_first = [first[group] == number for number, group in enumerate(groups)]
        parts = [worth(of_group[group]) if here else 0.0 for group, here in zip(groups, is_first, strict=True)]
        return cls(parts, [float(here) for here in is_first])

    def of_each(self, categories: Sequence[str]) -> dict[str, "Ratio"]:
        """Return the same ratio over the questions of each category, in the set's order."""

        def within(name: str, values: Sequence[float]) -> list[float]:
            return [value * (category == name) for value, category in zip(values, categories, strict=True)]

        return {
            name: Ratio(within(name, self.parts), within(name, self.wholes), self.weight)
            for name in dict.fromkeys(categories)
        }


@dataclass(frozen=True)
class Metric:
    """A weighted sum of ratios. A mean over questions is a single ratio with wholes of 1."""

    ratios: tuple[Ratio, ...]

    @classmethod
    def of(cls, *ratios: Ratio, weight: float = 1.0) -> "Metric":
        return cls(tuple(ratio._replace(weight=weight) for ratio in ratios))

    @property
    def value(self) -> float:
        """The weighted sum. A ratio that divides by 0 is 0, as in published scorers; precision without any yes, for
        example."""
        return sum(ratio.weight * sum(ratio.parts) / (sum(ratio.wholes) or 1.0) for ratio in self.ratios)

    @property
    def points(self) -> tuple[float, ...]:
        """The points whose mean is the value, in the set's order; () if it is not a mean."""
        ratio, *others = self.ratios
        if others or ratio.weight != 1 or not set(ratio.wholes) <= {0.0, 1.0}:
            return ()
        return tuple(part for part, whole in zip(ratio.parts, ratio.wholes, strict=True) if whole)

    def interval(self, images: Sequence[int]) -> stats.Interval:
        """Return the 95 % interval of the value, given the number of each question's image; NaN if every draw gives the
        same value, such as F1 when all answers are right.

        Images are resampled with all their questions, so that groups stay complete.
        """
        if points := self.points:
            wholes = self.ratios[0].wholes
            return stats.interval(points, [image for image, whole in zip(images, wholes, strict=True) if whole])
        return stats.with_a_width(stats.interval_of_ratios(self.ratios, images))
