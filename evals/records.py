"""Read the JSON of published sets so that whatever is wrong in it is named with file and line, or file and record."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, byte {error.start}: not UTF-8; save the file as UTF-8") from error


def field(record: Any, key: str, where: str) -> Any:
    """Return `record[key]`; `where` says which file and record an error is about."""
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected an object with {key!r}, found {type(record).__name__}")
    if key not in record:
        raise ValueError(f"{where}: no {key!r}; it has {', '.join(map(repr, record)) or 'nothing'}")
    return record[key]


def only_file(folder: Path, *patterns: str) -> Path | None:
    """Return the one file in `folder` that matches a pattern, None where there is none; two are an error."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of pictures and questions")
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if len(found) > 1:
        raise ValueError(f"{folder}: {' and '.join(path.name for path in found)} both match; keep one in the folder")
    return found[0] if found else None
