"""Questions that are answered with yes or no."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenprune.evals.sample import Sample
from tokenprune.evals.task import Answered, Metric


@dataclass(frozen=True, kw_only=True)
class YesNo(Sample):
    """`truth` is True for yes. `read` is the set's own way to read an answer, None where it says neither."""

    truth: bool
    read: Callable[[str], bool | None]

    def score(self, answer: str) -> float | None:
        said = self.read(answer)
        return None if said is None else float(said == self.truth)


def f1_and_yes_rate(answered: Answered) -> dict[str, Metric]:
    """Return F1, precision and recall of yes, and the share of answers that are yes. None is a mean over questions
    but the last.
    """
    said = [(sample.truth, sample.read(answer)) for sample, answer in answered if isinstance(sample, YesNo)]
    right = sum(truth and bool(given) for truth, given in said)
    precision, recall = _share(right, [bool(given) for _, given in said]), _share(right, [truth for truth, _ in said])
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {
        "F1": Metric(f1),
        "precision": Metric(precision),
        "recall": Metric(recall),
        "yes-rate": Metric.mean([float(bool(given)) for _, given in said]),
    }


def _share(count: int, of: Sequence[bool]) -> float:
    return count / sum(of) if any(of) else 0.0
