"""Read and write results as lines of JSON, small enough to be committed.

Scores are a string with one character per question if all are 0, 1, unparsable (`-`) or failed (`!`), as in "0110-1";
soft accuracies are a list. The numbers that follow from the scores (n, accuracy, interval, unparsable, failed) are also
written for readers without this module, but not read back.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError
from tokenprune.evals.reading import fields as fields_
from tokenprune.evals.reading.fields import as_number, as_object, check_types, field
from tokenprune.evals.storage import files
from tokenprune.evals.storage.results import FAILED, QuestionScore, TaskResult
from tokenprune.text_files import parse_json, read_text

#: What to do about a broken line; skipping it would silently lose a setup.
RESTORE = "; restore the file or, in a run folder, repeat its `tokenprune eval`, which writes it anew from the answers"

_CHARACTERS: dict[QuestionScore, str] = {0.0: "0", 1.0: "1", None: "-", FAILED: "!"}
_SCORES: dict[str, QuestionScore] = {character: score for score, character in _CHARACTERS.items()}


def to_line(result: TaskResult) -> str:
    derived = {name: getattr(result, name) for name in ("n", "unparsable", "failed")}
    # If every question failed there is neither, a single image may give no interval, and JSON has no NaN.
    interval = result.interval if result.n else None
    derived["accuracy"] = result.accuracy if result.n else None
    derived["interval"] = interval if interval is not None and math.isfinite(interval[0]) else None
    scores = {"scores": {split: _packed(scores) for split, scores in result.scores.items()}}
    return json.dumps(asdict(result) | derived | scores)


def write(path: Path, results: Sequence[TaskResult]) -> None:
    """Write a file of results in one step: a killed process leaves the old file or the new."""
    files.replace(path, "".join(f"{to_line(result)}\n" for result in results))


def read(paths: Sequence[Path]) -> list[TaskResult]:
    """Return the results of all files. DataError if one appears twice with different scores, or if setups with
    different settings share a name."""
    results: dict[Any, TaskResult] = {}
    setups: dict[Any, tuple[TaskResult, str]] = {}
    places: dict[Any, str] = {}
    for path in paths:
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            where = f"{path}, line {number}"
            result = _from_line(line, where)
            setup = result.dataset, result.model, result.key
            _check_settings(result, where, *setups.setdefault(setup, (result, where)))
            name = *setup, result.task
            twin, first = results.setdefault(name, result), places.setdefault(name, where)
            if (twin.questions, twin.scores) != (result.questions, result.scores):
                raise DataError(
                    f"{where}: {result.task}, {result.strategy} appears twice, with different scores, first in "
                    f"{first}. Leave out one of the files or run folders, or delete one of the lines"
                )
    if not results:
        raise DataError(f"{', '.join(map(str, paths))}: no results")
    return list(results.values())


def _check_settings(result: TaskResult, where: str, other: TaskResult, there: str) -> None:
    """Raise DataError if a setting that both have differs; newer versions have more settings."""
    own, others = result.settings, other.settings
    for setting in own.keys() & others.keys():
        if own[setting] != others[setting]:
            raise DataError(
                f"{where}: {result.key} has {setting}={own[setting]!r}, and {setting}={others[setting]!r} in {there}, "
                "so one name stands for two setups. Report on one of them at a time; a settings file may also be "
                "renamed and measured again"
            )


def _from_line(line: str, where: str) -> TaskResult:
    record = as_object(parse_json(line, where, RESTORE, one_line=True), where)
    if "pictures" in record and "images" not in record:
        raise DataError(f'{where}: written before version 0.2; rename the key "pictures" to "images" in this file')
    if "scenes" in record and "dataset" not in record:  # its name until version 0.2
        record["dataset"] = record.pop("scenes")
    known = [item.name for item in fields(TaskResult) if item.default_factory is MISSING or item.name in record]
    values = {name: field(record, name, where) for name in known}
    check_types(values, {name: kind for name, kind in _KINDS.items() if name in values}, where)
    for name in values["versions"]:
        fields_.text(values["versions"], name, f"{where}, 'versions'")
    values["intervals"] = {name: _bounds(bounds, where) for name, bounds in values.get("intervals", {}).items()}
    values["scores"] = {split: _unpacked(packed, where) for split, packed in values["scores"].items()}
    for split, scores in values["scores"].items():
        images = fields_.items(values["images"], split, f"{where}, 'images'", may_be_empty=True)
        if len(images) != len(scores) or not all(isinstance(image, int) for image in images):
            raise DataError(f"{where}, 'images': not one number for each of the {len(scores)} scores of {split!r}")
    for name, value in values.get("metrics", {}).items():
        as_number(value, f"{where}, 'metrics', {name!r}")
    return TaskResult(**values)


def _packed(scores: list[QuestionScore]) -> str | list[QuestionScore]:
    return "".join(_CHARACTERS[score] for score in scores) if set(scores) <= set(_CHARACTERS) else scores


def _unpacked(packed: Any, where: str) -> list[QuestionScore]:
    if isinstance(packed, str) and set(packed) <= set(_SCORES):
        return [_SCORES[character] for character in packed]
    if isinstance(packed, list) and all(score in (None, FAILED) or as_number(score, where) <= 1 for score in packed):
        return packed
    raise DataError(f"{where}, 'scores': found {fields_.describe_value(packed)}, which are not scores{RESTORE}")


def _bounds(bounds: Any, where: str) -> tuple[float, float]:
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise DataError(f"{where}, 'intervals': found {fields_.describe_value(bounds)}; expected two numbers")
    return as_number(bounds[0], where), as_number(bounds[1], where)


_KINDS: dict[str, Any] = {
    **dict.fromkeys(
        ("dataset", "model", "task", "metric", "strategy", "position_ids", "device", "dtype", "questions"), str
    ),
    **dict.fromkeys(("settings", "versions", "scores", "images", "metrics", "intervals"), dict),
    **dict.fromkeys(("keep_ratio", "n_visual", "n_kept", "n_mean"), (int, float)),
    "kv_cache_bytes": int,
    "seconds": (int, float, type(None)),
}
