"""Read and write results as lines of JSON, small enough to be committed.

Scores are a string with one character per question if all are 0, 1, unparsable (`-`) or failed (`!`), as in "0110-1";
soft accuracies are a list. The numbers that follow from the scores (n, accuracy, interval, unparsable, failed) are
written too, for anyone who reads the file without this module, and are not read back.
"""

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError
from tokenprune.evals.run.results import FAILED, QuestionScore, TaskResult
from tokenprune.evals.tasks._read.fields import field

_CHARACTERS: dict[QuestionScore, str] = {0.0: "0", 1.0: "1", None: "-", FAILED: "!"}
_SCORES: dict[str, QuestionScore] = {character: score for score, character in _CHARACTERS.items()}


def to_line(result: TaskResult) -> str:
    derived = {name: getattr(result, name) for name in ("n", "unparsable", "failed")}
    # If every question failed there is neither, and JSON has no NaN.
    derived |= {name: getattr(result, name) if result.n else None for name in ("accuracy", "interval")}
    scores = {"scores": {split: _packed(scores) for split, scores in result.scores.items()}}
    return json.dumps(asdict(result) | derived | scores)


def read(paths: Sequence[Path]) -> list[TaskResult]:
    """Return the results of all files. DataError if one is there twice with different scores."""
    results: dict[Any, TaskResult] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            where = f"{path}, line {number}"
            result = _from_line(line, where)
            twin = results.setdefault((result.scenes, result.model, result.task, result.key), result)
            if (twin.questions, twin.scores) != (result.questions, result.scores):
                raise DataError(f"{where}: {result.task}, {result.strategy} is there twice, with different scores")
    if not results:
        raise DataError(f"{', '.join(map(str, paths))}: no results")
    return list(results.values())


def _from_line(line: str, where: str) -> TaskResult:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: broken JSON: {error.msg}; delete the line or restore the file") from error
    if "pictures" in record and "images" not in record:
        raise DataError(f'{where}: written before version 0.2; rename the key "pictures" to "images" in this file')
    known = [item.name for item in fields(TaskResult) if item.default_factory is MISSING or item.name in record]
    values = {name: field(record, name, where) for name in known}
    values["intervals"] = {name: tuple(bounds) for name, bounds in values.get("intervals", {}).items()}
    values["scores"] = {split: _unpacked(packed) for split, packed in values["scores"].items()}
    return TaskResult(**values)


def _packed(scores: list[QuestionScore]) -> str | list[QuestionScore]:
    return "".join(_CHARACTERS[score] for score in scores) if set(scores) <= set(_CHARACTERS) else scores


def _unpacked(packed: str | list[QuestionScore]) -> list[QuestionScore]:
    return [_SCORES[character] for character in packed] if isinstance(packed, str) else packed
