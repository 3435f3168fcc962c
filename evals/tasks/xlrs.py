"""XLRS-Bench (https://arxiv.org/abs/2503.23771), its VQA questions: multiple choice about images of up to 10,000 px.

It reads the Hub's initiacms/XLRS-Bench-lite, whose only split the Hub calls `train`. The prompt and the reading of
answers are those of its scripts, checked by running lmms-eval's copy: without brackets every letter from a to e counts,
so `B. red` is read as B, D and E. One category may have several right letters. The layout follows its scripts and was
not checked against the real files.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.hub import table_records
from tokenprune.evals.reading.records import Record
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, mean_of_categories

SEVERAL = "Land use classification/Overall Land use classification"
ONE_LETTER = (
    "Select the best answer for the multiple-choice question based on the image. Only respond with the letter "
    "corresponding to the correct answer (A, B, C, D).\nThe answer is:"
)
LETTERS = (
    "Select the best answer(s) for the multiple-choice question based on the image. There may be more than one "
    "correct option. Only respond with the letter(s) corresponding to the correct answer(s) (A, B, C, D), with "
    "multiple choices separated by spaces.The answer(s) is(are):"
)


def read(answer: str) -> frozenset[str]:
    """Return what the published scorer reads: the letters in brackets, or else every letter from a to e, even in words.

    `The answer is` and the like are removed first. Without a capital A to E nothing counts.
    """
    text = re.sub(r"The (?:(?:best |correct )?answer is|answer)", "", answer)
    if not re.search("[A-E]", text):
        return frozenset()
    letters = re.findall(r"\(([A-Ea-e])\)", text) or re.findall(r"[A-Ea-e]", text)
    return frozenset(letter.upper() for letter in letters)


@dataclass(frozen=True, kw_only=True)
class Letters(Question):
    """A question whose answer is right if it names all `letters` and no others."""

    letters: frozenset[str]

    def score(self, answer: str) -> float | None:
        given = read(answer)
        return float(given == self.letters) if given else None


def _one_split(path: Path) -> list[Record]:
    return [record.in_split("") for record in table_records(path)]


@dataclass(frozen=True)
class Xlrs(FileTask[Letters]):
    """Accuracy over questions, and its mean over the subtasks."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = tuple(form._replace(read=_one_split) for form in hub())

    def question(self, record: Record, folder: Path, style: Style) -> Letters:
        options, category = "\n".join(record.texts("multi-choice options")), record.text("category")
        letters = frozenset(re.findall(r"[A-E]", record.text("answer")))
        if not letters:
            raise DataError(f"{record.where}: answer {record['answer']!r} has no letter from A to E; correct the file")
        asked = LETTERS if category == SEVERAL else ONE_LETTER
        return Letters(
            task=self.name,
            id=f"{self.name}-{record.identifier('index', 'question_id')}",
            images=record.images(),
            text=f"{record.text('question')}The choices are listed below:\n{options}\n\n{asked}",
            category=category,
            letters=letters,
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        return super().metrics(answered) | {"mean of categories": mean_of_categories(answered)}
