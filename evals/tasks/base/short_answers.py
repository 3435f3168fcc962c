"""Open questions whose answers are compared as text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from rapidfuzz.distance import Levenshtein

from tokenprune.evals.tasks.base.question import Question

#: Full stops of Latin and other scripts, and of Chinese and Japanese, in full and half width.
PERIODS = ".\N{IDEOGRAPHIC FULL STOP}\N{FULLWIDTH FULL STOP}\N{HALFWIDTH IDEOGRAPHIC FULL STOP}"


@dataclass(frozen=True, kw_only=True)
class ShortAnswer(Question):
    """A question with right `answers`. worth: the set's metric, 0 to 1, of an answer and the right ones."""

    answers: tuple[str, ...]
    worth: Callable[[str, Sequence[str]], float]

    def score(self, answer: str) -> float | None:
        """Return the answer's score, None if it is empty."""
        return self.worth(answer.strip(), self.answers) if answer.strip() else None


def exact(answer: str, answers: Sequence[str]) -> float:
    """Return 1 for one of the answers, ignoring case and a final period, including Chinese and Japanese ones."""
    return float(plain(answer) in map(plain, answers))


def plain(text: str) -> str:
    """Return an answer in lower case, without its final period and with single spaces; an accent may be a separate
    character or part of one."""
    return " ".join(normalize("NFC", text).lower().strip().rstrip(PERIODS).split())


def anls(answer: str, answers: Sequence[str]) -> float:
    """Return DocVQA's similarity (https://arxiv.org/abs/1907.00490) as in the challenge's script.

    It is 1 - NL, or 0 if that is below 0.5 (in the paper, 0.5 counts as 0 too). NL is the edit distance to the nearest
    answer, ignoring case and spacing, divided by the length of the longer text, spacing included.
    """
    similarity = 1 - min(_distance(answer, truth) for truth in answers)
    return similarity if similarity >= 0.5 else 0.0


def _distance(given: str, truth: str) -> float:
    return Levenshtein.distance(_spaced(given), _spaced(truth)) / max(len(given), len(truth))


def _spaced(text: str) -> str:
    return " ".join(text.lower().split())


def relaxed(answer: str, answers: Sequence[str]) -> float:
    """Return ChartQA's relaxed accuracy (https://arxiv.org/abs/2203.10244, 5.1).

    It is 1 for a number within 5 % of the true one, or the same text in any case. A percent sign divides by 100, as in
    the common scorers. A true 0 is compared as text.
    """
    return max(_relaxed(answer, truth) for truth in answers)


def _relaxed(answer: str, truth: str) -> float:
    given, true = _number(answer), _number(truth)
    if given is not None and true:
        return float(abs(given - true) / abs(true) <= 0.05)
    return float(answer.lower() == truth.lower())


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
