"""Read fields of a record; DataError names the file, record and field of a missing or wrong value."""

import ast
import math
import reprlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tokenprune.errors import DataError

R = TypeVar("R")
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 40


def field(record: Any, key: str, where: str) -> Any:
    """Return `record[key]`. DataError, naming the file and record `where`, if there is none."""
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: expected an object with {key!r}, found {describe_value(record)}")
    if key not in record:
        raise DataError(f"{where}: no {key!r}; it has {', '.join(map(repr, record)) or 'nothing'}")
    return record[key]


def text(record: Any, key: str, where: str) -> str:
    return as_text(field(record, key, where), f"{where}, {key!r}")


def identifier(record: Any, key: str, where: str) -> str | int:
    """Return an ID: text or a whole number."""
    value = field(record, key, where)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise DataError(f"{where}, {key!r}: expected an ID (text or a whole number), found {describe_value(value)}")
    return as_text(value, f"{where}, {key!r}")


def integer(record: Any, key: str, where: str) -> int:
    """Return a whole number, which text tables hold as digits."""
    value = field(record, key, where)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{where}, {key!r}: expected a whole number, found {describe_value(value)}")
    return value


def number(record: Any, key: str, where: str) -> float:
    """Return a finite number."""
    return as_number(field(record, key, where), f"{where}, {key!r}")


def boolean(record: Any, key: str, where: str) -> bool:
    value = field(record, key, where)
    if value not in (0, 1) or isinstance(value, float):
        raise DataError(f"{where}, {key!r}: expected true or false, found {describe_value(value)}")
    return bool(value)


def items(record: Any, key: str, where: str, *, may_be_empty: bool = False) -> Sequence[Any]:
    """Return a list."""
    value = field(record, key, where)
    if not isinstance(value, list) or not (value or may_be_empty):
        raise DataError(f"{where}, {key!r}: expected a list, found {describe_value(value)}")
    return value


def texts(record: Any, key: str, where: str) -> list[str]:
    """Return a non-empty list of strings."""
    return [as_text(value, f"{where}, {key}[{number}]") for number, value in enumerate(items(record, key, where))]


def as_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: expected text, found {describe_value(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: half a character at position {error.start}; save the file as UTF-8") from error
    return value


def as_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, found {describe_value(value)}")
    return value


def check_types(record: dict[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    """Raise DataError unless each field's value has its type, one of `isinstance`'s; numbers are finite."""
    for key, kind in kinds.items():
        value = field(record, key, where)
        of_type = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not of_type or (isinstance(value, float) and not math.isfinite(value)):
            raise DataError(f"{where}, {key!r}: found {describe_value(value)}, which this field cannot hold")


def python_list(text: str) -> list[Any] | None:
    """Return the list that a text is, written as in Python; None for any other text."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def as_number(value: Any, where: str) -> float:
    """Return a finite number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            if math.isfinite(number := float(value)):
                return number
        except OverflowError:
            pass
    raise DataError(f"{where}: expected a number, found {describe_value(value)}")


def by_key(records: Iterable[tuple[str, R]], key: str) -> dict[str | int, R]:
    """Return records, given with their places, by the ID in their field `key`. DataError if two share one."""
    by_name: dict[str | int, tuple[str, R]] = {}
    for where, record in records:
        called = identifier(getattr(record, "content", record), key, where)
        if called in by_name:
            raise DataError(f"{where}: {key} {called!r} appears twice, first in {by_name[called][0]}; keep one of them")
        by_name[called] = where, record
    return {called: record for called, (_, record) in by_name.items()}


def check_distinct(names: Iterable[Hashable], where: str) -> None:
    """Raise DataError if two questions have the same name, so that their answers could not be told apart."""
    seen: set[Hashable] = set()
    for called in names:
        if called in seen:
            raise DataError(f"{where}: the question {called} appears twice; keep one of them")
        seen.add(called)


def describe_value(value: Any) -> str:
    """Return a value, shortened, for an error."""
    try:
        return "null" if value is None else f"{type(value).__name__} {_short.repr(value)}"
    except (ValueError, RecursionError):  # for integers of thousands of digits, and for deep nesting
        return type(value).__name__
