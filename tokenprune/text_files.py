"""Reads text, JSON and TOML; errors name the file and the place of whatever is wrong in it."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError, SettingError

#: The class of error to raise: DataError for data, SettingError for settings.
Kind = type[DataError] | type[SettingError]


def read_text(path: Path, error: Kind = DataError) -> str:
    """Return the text of a UTF-8 file, without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as reason:
        raise error(f"{path}: no such file") from reason
    except UnicodeDecodeError as reason:
        line = reason.object[: reason.start].count(b"\n") + 1
        raise error(f"{path}, line {line}: not UTF-8; save the file as UTF-8, if it is text") from reason


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file. Unlike `splitlines`, this leaves rare separators (U+2028, U+0085) alone, which
    JSON and tables may have inside a text."""
    lines = read_text(path).split("\n")
    return lines if lines[-1] else lines[:-1]


def read_json(path: Path, error: Kind = DataError) -> Any:
    return parse_json(read_text(path, error), str(path), error=error)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. It needs Python 3.11 or the extra `evals`."""
    try:
        tomllib: Any = import_module("tomllib")
    except ModuleNotFoundError:
        tomllib = import_module("tomli")
    try:
        return tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as reason:  # broken TOML, or nested too deeply
        raise reason if isinstance(reason, DataError) else DataError(f"{path}: {reason}") from reason


def parse_json(text: str, where: str, then: str = "", *, one_line: bool = False, error: Kind = DataError) -> Any:
    """Return the value of a JSON text. Raises an `error` that names `where` if it is broken or has a key twice.

    then: what to do about broken JSON, for the error.
    one_line: whether `where` already names the line.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as reason:
        line, broken = "" if one_line else f", line {reason.lineno}", reason.msg.removesuffix(" starting at")
        raise error(f"{where}{line}, column {reason.colno}: broken JSON: {broken}{then}") from reason
    except RecursionError as reason:
        raise error(f"{where}: broken JSON: nested too deeply{then}") from reason
    except ValueError as reason:  # for a key that appears twice, or an integer of thousands of digits
        raise error(f"{where}: broken JSON: {reason}{then}") from reason


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} appears twice; keep one of them")
    return values
