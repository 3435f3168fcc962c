"""Open questions whose answers are compared with given ones as text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from tokenprune.evals.sample import Sample


@dataclass(frozen=True, kw_only=True)
class ShortAnswer(Sample):
    """`worth` is the set's metric: what an answer is worth, 0 to 1, beside the right `answers`."""

    answers: tuple[str, ...]
    worth: Callable[[str, Sequence[str]], float]

    def score(self, answer: str) -> float | None:
        """Return what the answer is worth; an empty one cannot be read."""
        return self.worth(answer.strip(), self.answers) if answer.strip() else None


def exact(answer: str, answers: Sequence[str]) -> float:
    """Return 1 for one of the answers, whatever its case and its last period."""
    return float(_plain(answer) in map(_plain, answers))


def _plain(text: str) -> str:
    return " ".join(text.lower().strip().rstrip(".").split())


def anls(answer: str, answers: Sequence[str]) -> float:
    """Return DocVQA's similarity (https://arxiv.org/abs/1907.00490): 1 - NL, or 0 where NL, the edit distance to the
    nearest answer by the length of the longer text, is 0.5 or more. Case and spacing do not count.
    """
    given, truths = _spaced(answer), [_spaced(truth) for truth in answers]
    distance = min(Levenshtein.normalized_distance(given, truth) for truth in truths)
    return 1 - distance if distance < 0.5 else 0.0


def _spaced(text: str) -> str:
    return " ".join(text.lower().split())


def relaxed(answer: str, answers: Sequence[str]) -> float:
    """Return ChartQA's relaxed accuracy (https://arxiv.org/abs/2203.10244, 5.1): a number within 5 % of the true one,
    or the same text whatever its case.

    A percent sign divides by 100, as in the scorers in use. A true 0 is compared as text.
    """
    return max(_relaxed(answer, truth) for truth in answers)


def _relaxed(answer: str, truth: str) -> float:
    given, true = _number(answer), _number(truth)
    if given is not None and true:
        return float(abs(given - true) <= 0.05 * abs(true))
    return float(answer.lower() == truth.lower())


def _number(text: str) -> float | None:
    match = re.fullmatch(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(%?)", text.strip(), flags=re.IGNORECASE)
    return None if match is None else float(match[1]) / (100 if match[2] else 1)
