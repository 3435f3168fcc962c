"""Read text and JSON; DataError names the file and the place of whatever is wrong in it."""

import json
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, byte {error.start}: not UTF-8; save the file as UTF-8") from error


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file. Unlike `splitlines`, it leaves rare separators alone, which JSON and tables may
    have inside a text (U+2028, U+0085)."""
    lines = read_text(path).split("\n")
    return lines if lines[-1] else lines[:-1]


def read_json(path: Path) -> Any:
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str, then: str = "", *, one_line: bool = False) -> Any:
    """Return the value that JSON stands for. DataError, naming `where`, if it is broken or has a key twice.

    then: what to do about broken JSON, for the error. one_line: whether `where` names the line already.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        line = "" if one_line else f", line {error.lineno}"
        raise DataError(f"{where}{line}, column {error.colno}: broken JSON: {error.msg}{then}") from error
    except RecursionError as error:
        raise DataError(f"{where}: broken JSON: nested too deeply{then}") from error
    except ValueError as error:  # of a key that is there twice, or of an integer of thousands of digits
        raise DataError(f"{where}: broken JSON: {error}{then}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} appears twice; keep one of them")
    return found
