"""A task: a published set of questions, how a model is asked them, and what its answers are worth."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.sample import Sample
from tokenprune.evals.styles import LLAVA, Style

Answered = Sequence[tuple[Sample, str]]


@dataclass(frozen=True)
class Metric:
    """What a set of answers is worth.

    `points` are those of each question, or of each group of questions that is worth something together, in the order
    of the set: `value` is their mean, and they give it an interval and can be compared one by one with those of
    another run on the same questions. () where the value is no mean (F1, a sum of accuracies).
    """

    value: float
    points: tuple[float, ...] = ()

    @classmethod
    def mean(cls, points: Sequence[float]) -> "Metric":
        return cls(sum(points) / len(points), tuple(points))


@dataclass(frozen=True)
class Task(ABC):
    """One of `tokenprune.evals.tasks.TASKS`.

    `name` is what a user types, `title` what tables call it. `metric` is the name of the main metric.
    """

    metric: ClassVar[str]

    name: str
    title: str

    @abstractmethod
    def is_in(self, folder: Path) -> bool:
        """Say whether `folder` holds this set's files. FileNotFoundError where there is no such folder."""

    @abstractmethod
    def load(self, folder: Path, split: str | None = None, style: Style = LLAVA) -> Sequence[Sample]:
        """Return the questions in `split`, None means all but `train`, asked as models of that `style` want them.

        Whatever is wrong with the files is an error that names the file and the line or record.
        """

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        """Return what the answers are worth by each of the set's published metrics, the main one first.

        An answer that cannot be read is worth 0. `answered` may be any part of the set, such as one split.
        """
        return {self.metric: Metric.mean([sample.score(answer) or 0.0 for sample, answer in answered])}
