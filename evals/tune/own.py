"""The questions to tune on or to train with: a set in a published format, or a user's own.

A user's own folder holds `questions.jsonl`, one object per line:

    {"image": "photos/1.jpg", "question": "What is in the cup?", "answer": "tea"}

`image` is a path in the folder, or a list of them; `answer` is a text or a list of accepted ones, and may be left out
of all lines; `kind` says what kind of question it is, for the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.records import Record, line_records
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.short_answers import ShortAnswer, exact

FILE, TASK = "questions.jsonl", "own"
KEYS = ("image", "question", "answer", "kind")


def load(
    data: Path, tasks: Sequence[str] | None = None, *, split: str | None, style: Style, labels: bool
) -> Sequence[Question]:
    """Return the questions in a folder. DataError, naming file and line, for anything wrong with them.

    labels: False for questions whose right answers may be missing."""
    path = data / FILE
    if not path.is_file():
        return load_questions(data, tasks, split=split, style=style)
    questions = [
        _question(record, number, data, style, labels) for number, record in enumerate(line_records(path), start=1)
    ]
    if not questions:
        raise DataError(f'{path}: no questions; write lines {{"image": "1.jpg", "question": "...", "answer": "..."}}')
    return questions


def _question(record: Record, number: int, folder: Path, style: Style, labels: bool) -> ShortAnswer:
    for key in record.content:
        if key not in KEYS:
            raise DataError(f"{record.where}: unknown key {key!r}; known are {', '.join(KEYS)}")
    answers = _texts(record, "answer") if "answer" in record else ()
    if labels and not answers:
        raise DataError(
            f"{record.where}: no answer. Add one, or write --no-labels to compare with the unpruned model's own answers"
        )
    images = _texts(record, "image")
    if not images:
        raise DataError(f"{record.where}, 'image': names no image")
    return ShortAnswer(
        task=TASK,
        id=f"{TASK}-{number}",
        images=tuple(record.find_image(folder, image) for image in images),
        text=style.short_answer(record.text("question")),
        category=record.text("kind") if "kind" in record else "",
        answers=answers,
        worth=exact,
    )


def _texts(record: Record, key: str) -> tuple[str, ...]:
    value, where = record[key], f"{record.where}, {key!r}"
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        raise DataError(f"{where}: expected a text or a list of texts, found {fields.shown(value)}")
    return tuple(fields.as_text(one, where) for one in values)
