"""Rows as lines of JSON, small enough to be committed.

A score a question is a character where all are 0, 1, unreadable (`-`) or failed (`!`): "0110-1"; soft accuracies are a
list. What follows from the scores (n, accuracy, interval, unparsable, failed) is written beside them for whoever reads
the file without this module, and not read again.
"""

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError
from tokenprune.evals.run.results import FAILED, QuestionScore, TaskResult
from tokenprune.evals.tasks._read.records import field

_CHARACTERS: dict[QuestionScore, str] = {0.0: "0", 1.0: "1", None: "-", FAILED: "!"}
_SCORES: dict[str, QuestionScore] = {character: score for score, character in _CHARACTERS.items()}


def to_line(row: TaskResult) -> str:
    derived = {name: getattr(row, name) for name in ("n", "unparsable", "failed")}
    # Of a task of which no question could be asked there is neither, and JSON has no NaN.
    derived |= {name: getattr(row, name) if row.n else None for name in ("accuracy", "interval")}
    scores = {"scores": {split: _packed(scores) for split, scores in row.scores.items()}}
    return json.dumps(asdict(row) | derived | scores)


def read(paths: Sequence[Path]) -> list[TaskResult]:
    """Return the rows of all files. One that is there twice with the same scores is taken once, else it is an error."""
    rows: dict[Any, TaskResult] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            where = f"{path}, line {number}"
            row = _from_line(line, where)
            twin = rows.setdefault((row.scenes, row.model, row.task, row.key), row)
            if (twin.questions, twin.scores) != (row.questions, row.scores):
                raise DataError(f"{where}: {row.task}, {row.strategy} is there twice, with different scores")
    if not rows:
        raise DataError(f"{', '.join(map(str, paths))}: no rows")
    return list(rows.values())


def _from_line(line: str, where: str) -> TaskResult:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: broken JSON: {error.msg}; was the run stopped while it wrote?") from error
    known = [item.name for item in fields(TaskResult) if item.default_factory is MISSING or item.name in record]
    values = {name: field(record, name, where) for name in known}
    values["intervals"] = {name: tuple(bounds) for name, bounds in values.get("intervals", {}).items()}
    values["scores"] = {split: _unpacked(packed) for split, packed in values["scores"].items()}
    return TaskResult(**values)


def _packed(scores: list[QuestionScore]) -> str | list[QuestionScore]:
    return "".join(_CHARACTERS[score] for score in scores) if set(scores) <= set(_CHARACTERS) else scores


def _unpacked(packed: str | list[QuestionScore]) -> list[QuestionScore]:
    return [_SCORES[character] for character in packed] if isinstance(packed, str) else packed
