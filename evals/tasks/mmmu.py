"""MMMU (https://arxiv.org/abs/2311.16502): college exams in thirty subjects, with up to seven images.

It reads the Hub's MMMU/MMMU, in a folder for each subject, and lmms-lab/MMMU; published numbers are of `validation`,
and the answers of `test` are not published. The layouts follow the Hub and were not checked against the real files.
All images that a question names go before its text, in which `<image 1>` stays, as in lmms-eval, whose prompt this is.
Answers are read as in the authors' eval_utils.py (checked by running it), which takes a random letter where there is
none; here such an answer is unparsable.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import LETTER, SHORT_ANSWER, Style
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.records import Record
from tokenprune.evals.tasks.base.choices import Choice, checked_letter, format_options, lettered
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.short_answers import ShortAnswer
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, mean_of_categories

NO_ANSWERS = "the test split has no answers; use --split validation"
#: What introduces the conclusion of an answer, in any of its lines; in its last, = too.
BEFORE_CONCLUSIONS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def read(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the last letter in brackets, or else the last between spaces, or else, of an answer of more than five
    words, the option whose text is last in it."""
    for mark in ",.!?;:'":
        answer = answer.strip(mark)
    answer = f" {answer} "
    places = [
        {letter: answer.rfind(f"({letter})") for letter in options},
        {letter: answer.rfind(f" {letter} ") for letter in options},
    ]
    if len(answer.split()) > 5:
        places.append({letter: answer.lower().rfind(text.lower()) for letter, text in options.items()})
    return next((max(last, key=last.__getitem__) for last in places if max(last.values()) >= 0), None)


def concludes(answer: str, answers: Sequence[str]) -> float:
    """Return 1 if a conclusion of the answer contains the text of a right one, or a number that equals one rounded to
    two decimal places."""
    right = [form for text in answers for form in _forms(text)]
    given = [form for text in _conclusions(answer) for form in (text, *_numbers(text))]
    return float(any(_agrees(form, right) for text in given for form in _forms(text)))


def _agrees(form: str | float, right: Sequence[str | float]) -> bool:
    if isinstance(form, str):
        return any(isinstance(text, str) and text in form for text in right)
    return form in right


def _conclusions(answer: str) -> list[str]:
    """Return, of each line, the shortest text after a word that introduces a conclusion; if there are none, all."""
    answer = answer.strip().strip(".").lower()
    lines, found = answer.split("\n"), []
    for number, line in enumerate(lines, start=1):
        shortest = ""
        for word in (*BEFORE_CONCLUSIONS, *("=" * (number == len(lines)))):
            after = line.rpartition(word)[2].strip()
            if word in line and (not shortest or len(after) < len(shortest)):
                shortest = after
        if shortest and shortest not in set(":,.!?;'"):
            found.append(shortest)
    return found or [answer]


def _numbers(text: str) -> list[str]:
    return [number for pattern in NUMBERS for number in pattern.findall(text)]


def _forms(text: str) -> list[str | float]:
    """Return a number, or a text in lower case; a single character must be beside a space."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


@dataclass(frozen=True)
class Mmmu(FileTask[Question]):
    """Accuracy, and its mean over the subjects."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = hub("*")

    def question(self, record: Record, folder: Path, style: Style) -> Choice | ShortAnswer:
        name, text, answer = record.text("id"), record.text("question"), record.text("answer")
        options = lettered(_texts(record, "options"))
        shown = f"{text}\n{format_options(options)}" if options else text
        images = sorted(set(re.findall(r"<(image) (\d+)>", shown)))
        about: dict[str, Any] = {
            "task": self.name,
            "id": f"{self.name}-{name}",
            "images": tuple(record.image("_".join(place)) for place in images),
            "split": record.split,
            "category": re.sub(r"^[^_]*_|_\d+$", "", name),  # of validation_Art_Theory_12
        }
        if not images:
            raise DataError(f"{record.where}: the question names no image, such as <image 1>; correct the file")
        ask = LETTER if options else SHORT_ANSWER
        about["text"] = f"{shown}\n\n{ask}" if style.instructions else shown
        if options:
            letter = checked_letter(options, answer, record.where, NO_ANSWERS)
            return Choice(**about, options=options, letter=letter, read=read)
        if answer in ("", "?"):
            raise DataError(f"{record.where}: no answer; {NO_ANSWERS}")
        answers = tuple(_texts(record, "answer")) if answer.startswith("[") else (answer,)
        return ShortAnswer(**about, answers=answers, worth=concludes)

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        return super().metrics(answered) | {"mean of subjects": mean_of_categories(answered)}


def _texts(record: Record, key: str) -> list[str]:
    """Return a list of texts that is written as in Python."""
    where = f"{record.where}, {key!r}"
    texts = fields.python_list(record.text(key))
    if texts is None:
        raise DataError(f"{where}: not a list as in Python, such as ['3', '4']; correct the file")
    return [fields.as_text(text, where) for text in texts]
