"""The questions to tune on or to train with: a set in a published format, or a user's own.

A user's own folder holds `questions.jsonl`, one object per line:

    {"image": "photos/1.jpg", "question": "What is in the cup?", "answer": "tea"}

`image` is a path in the folder, or a list of them; `answer` is a text or a list of accepted ones, and may be left out
of all lines; `kind` says what kind of question it is, for the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError
from tokenprune.evals.models.loading import load_tasks
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.tasks._base.question import Question
from tokenprune.evals.tasks._base.short_answers import ShortAnswer, exact
from tokenprune.evals.tasks._read import fields
from tokenprune.evals.tasks._read.allowed import find_inside
from tokenprune.evals.tasks._read.text import parse_json

FILE, TASK = "questions.jsonl", "own"
KEYS = ("image", "question", "answer", "kind")


def load(
    data: Path, tasks: Sequence[str] | None = None, *, split: str | None, style: Style, labels: bool
) -> Sequence[Question]:
    """Return the questions in a folder. DataError, naming file and line, for anything wrong with them.

    labels: False for questions whose right answers may be missing."""
    path = data / FILE
    if not path.is_file():
        return load_tasks(data, tasks, split=split, style=style)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, byte {error.start}: not UTF-8; save the file as UTF-8") from error
    questions = [
        _question(line, number, path, style, labels) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not questions:
        raise DataError(f'{path}: no questions; write lines {{"image": "1.jpg", "question": "...", "answer": "..."}}')
    return questions


def _question(line: str, number: int, path: Path, style: Style, labels: bool) -> ShortAnswer:
    where = f"{path}, line {number}"
    record = parse_json(line, where, "", one_line=True)
    fields.as_object(record, where)
    for key in record:
        if key not in KEYS:
            raise DataError(f"{where}: unknown key {key!r}; known are {', '.join(KEYS)}")
    answers = _texts(record.get("answer", []), f"{where}, 'answer'")
    if labels and not answers:
        raise DataError(
            f"{where}: no answer. Add one, or write --no-labels to compare with the unpruned model's own answers"
        )
    images = _texts(fields.field(record, "image", where), f"{where}, 'image'")
    if not images:
        raise DataError(f"{where}, 'image': names no image")
    return ShortAnswer(
        task=TASK,
        id=f"{TASK}-{number}",
        images=tuple(find_inside(path.parent, [image], where) for image in images),
        text=style.short_answer(fields.text(record, "question", where)),
        category=fields.text(record, "kind", where) if "kind" in record else "",
        answers=answers,
        worth=exact,
    )


def _texts(value: Any, where: str) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise DataError(f"{where}: expected a text or a list of texts, found {value!r}")
    return tuple(values)
