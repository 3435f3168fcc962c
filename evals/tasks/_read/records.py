"""Read the files of published sets; DataError names the file and the line or record of anything wrong."""

import base64
import binascii
import csv
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON: {error.msg}") from error


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, byte {error.start}: not UTF-8; save the file as UTF-8") from error


def field(record: Any, key: str, where: str) -> Any:
    """Return `record[key]`. DataError, naming the file and record `where`, if there is none."""
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: expected an object with {key!r}, found {type(record).__name__}")
    if key not in record:
        raise DataError(f"{where}: no {key!r}; it has {', '.join(map(repr, record)) or 'nothing'}")
    return record[key]


def only_file(folder: Path, *patterns: str) -> Path | None:
    """Return the only file in `folder` that matches a pattern, None if none does. DataError if several do."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images and questions")
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if len(found) > 1:
        raise DataError(f"{folder}: {' and '.join(path.name for path in found)} both match; keep one in the folder")
    return found[0] if found else None


@dataclass(frozen=True)
class Record:
    """One question as its file has it. where: its file and place, for errors. split: the set's word, or ""."""

    where: str
    content: Any
    split: str = ""

    def __getitem__(self, key: str) -> Any:
        return field(self.content, key, self.where)

    def first(self, *keys: str) -> Any:
        """Return the first of these fields that exists; the published form and the Hub's name some differently."""
        there = [key for key in keys if isinstance(self.content, Mapping) and key in self.content]
        return self[there[0] if there else keys[0]]

    def text(self, key: str) -> str:
        """Return a field as text, and an empty text if it is missing or empty, which a table writes as nan."""
        value = self.content.get(key)
        return "" if value is None or str(value).strip().lower() == "nan" else str(value)

    def in_split(self, split: str) -> "Record":
        return replace(self, split=split)

    def find_image(self, folder: Path, *names: str) -> Path:
        """Return the first of the files that exists in `folder`. DataError, naming all of them, if none does."""
        for name in names:
            if (folder / name).is_file():
                return folder / name
        others = f" (or {' or '.join(names[1:])})" if names[1:] else ""
        raise DataError(f"{self.where}: missing image {folder / names[0]}{others}")


def json_records(path: Path, *keys: str) -> list[Record]:
    """Return the records of a JSON list, found under `keys` if there are any.

    An object in place of the list maps IDs to records; each record gets its ID as `id`.
    """
    content, where = read_json(path), str(path)
    for key in keys:
        content = field(content, key, where)
    where = ", ".join((where, *keys))
    if isinstance(content, dict):
        return [
            Record(f"{where}[{key!r}]", {"id": key, **record} if isinstance(record, dict) else record)
            for key, record in content.items()
        ]
    if not isinstance(content, list):
        raise DataError(f"{where}: expected a list of questions, found {type(content).__name__}")
    return [Record(f"{where}[{number}]", record) for number, record in enumerate(content)]


def line_records(path: Path) -> list[Record]:
    """Return the records of a file with one JSON object per line."""
    records = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            records.append(Record(where, json.loads(line)))
        except json.JSONDecodeError as error:
            raise DataError(f"{where}, column {error.colno}: broken JSON: {error.msg}") from error
    return records


def tsv_records(path: Path) -> list[Record]:
    """Return the records of a table of tab-separated values with a header line, quoted as spreadsheets do."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # images are base64 in one field; the default is 128 KiB
    rows: Iterator[list[str]] = csv.reader(read_text(path).splitlines(keepends=True), delimiter="\t")
    names = next(rows, None)
    if names is None:
        raise DataError(f"{path}, line 1: empty; expected a line of column names")
    records = []
    for row in rows:
        where = f"{path}, line {rows.line_num}"  # pyright: ignore[reportAttributeAccessIssue]
        if len(row) != len(names):
            raise DataError(f"{where}: {len(row)} fields where line 1 names {len(names)}; is the line broken?")
        records.append(Record(where, dict(zip(names, row, strict=True))))
    return records


@dataclass(frozen=True)
class Base64:
    """An image inside a table of text. where: its row, for errors."""

    where: str
    name: str
    text: str

    def __str__(self) -> str:
        return self.where

    def read_bytes(self) -> bytes:
        try:
            return base64.b64decode(self.text, validate=True)
        except binascii.Error as error:
            raise DataError(f"{self.where}: broken base64 image ({error})") from error
