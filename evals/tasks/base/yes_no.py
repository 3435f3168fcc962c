"""Questions that are answered with yes or no."""

from collections.abc import Callable
from dataclasses import dataclass

from tokenprune.evals.tasks.base.metric import Metric, Ratio
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.task import Answered


@dataclass(frozen=True, kw_only=True)
class YesNo(Question):
    """A question that is answered with yes or no.

    truth: True for yes. read: the set's own reading of an answer; None if it says neither.
    """

    truth: bool
    read: Callable[[str], bool | None]

    def score(self, answer: str) -> float | None:
        given = self.read(answer)
        return None if given is None else float(given == self.truth)


def f1_and_yes_rate(answered: Answered) -> dict[str, Metric]:
    """Return F1, precision and recall of yes, and the share of answers that are yes."""
    asked = [
        (question.truth, bool(question.read(answer))) for question, answer in answered if isinstance(question, YesNo)
    ]
    truths, given = ([float(pair[place]) for pair in asked] for place in (0, 1))
    right = [truth * yes for truth, yes in zip(truths, given, strict=True)]
    return {
        "F1": Metric.of(Ratio(right, [(truth + yes) / 2 for truth, yes in zip(truths, given, strict=True)])),
        "precision": Metric.of(Ratio(right, given)),
        "recall": Metric.of(Ratio(right, truths)),
        "yes-rate": Metric.of(Ratio.mean(given)),
    }
