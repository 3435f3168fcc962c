"""Read the files of published sets as records; DataError names the file and the line or record of anything wrong."""

import base64
import binascii
import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.allowed import find_inside
from tokenprune.evals.reading.fields import field
from tokenprune.evals.reading.images import StoredImage
from tokenprune.text_files import parse_json, read_json, read_lines, read_text


def only_file(folder: Path, *patterns: str, instead: str = "Keep one of them there.") -> Path | None:
    """Return the only file in `folder` that matches a pattern, None if none does. DataError if several do.

    instead: the end of the error, which says what to do.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images and questions")
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if len(paths) > 1:
        raise DataError(f"{folder}: holds {' and '.join(path.name for path in paths)}. {instead}")
    return paths[0] if paths else None


@dataclass(frozen=True)
class Record:
    """One question as in its file. where: its file and place, for errors. split: the set's name for it, or ""."""

    where: str
    content: Any
    split: str = ""

    @property
    def place(self) -> str:
        """Its file and place, which identify a record without an ID. `datasets` saves every split under the same name,
        in its own folder."""
        place = self.where.rpartition("/")[2]
        return f"{self.split}/{place}" if ".arrow, " in place else place

    def __getitem__(self, key: str) -> Any:
        return field(self.content, key, self.where)

    def key(self, *keys: str) -> str:
        """Return the first of these field names that exists; some differ between the published form and the Hub's."""
        return next((key for key in keys if key in self), keys[0])

    def __contains__(self, key: str) -> bool:
        return isinstance(self.content, Mapping) and key in self.content

    def has(self, key: str) -> bool:
        """Return whether the field exists and has a value."""
        return key in self and self.content[key] is not None

    def text(self, *keys: str) -> str:
        return fields.text(self.content, self.key(*keys), self.where)

    def text_or_empty(self, key: str) -> str:
        """Return a field as text, "" if it is missing or empty, which a table writes as nan."""
        if not self.has(key):
            return ""
        value = fields.text(self.content, key, self.where)
        return "" if value.strip().lower() == "nan" else value

    def identifier(self, *keys: str) -> str | int:
        return fields.identifier(self.content, self.key(*keys), self.where)

    def integer(self, *keys: str) -> int:
        return fields.integer(self.content, self.key(*keys), self.where)

    def boolean(self, key: str) -> bool:
        return fields.boolean(self.content, key, self.where)

    def number(self, key: str) -> float:
        return fields.number(self.content, key, self.where)

    def items(self, *keys: str) -> Sequence[Any]:
        return fields.items(self.content, self.key(*keys), self.where)

    def texts(self, *keys: str) -> list[str]:
        return fields.texts(self.content, self.key(*keys), self.where)

    def check_answered(self) -> None:
        """Raise DataError, which says what to do, for a question without "answers": those of test splits are not
        published, and the Hub's TextVQA has empty ones in their place."""
        given = self.content["answers"] if self.has("answers") else []
        if isinstance(given, list) and given == [""] * len(given):
            raise DataError(
                f"{self.where}: has no answers. The test split has none; use --split val, which is validation in most "
                "sets on the Hub"
            )

    def image(self, key: str = "image") -> StoredImage:
        """Return an image that is stored in the table itself."""
        return _stored(self[key], f"{self.where}, {key!r}")

    def images(self) -> tuple[StoredImage, ...]:
        """Return what "image" holds: one or more images stored in the table itself."""
        value, where = self["image"], f"{self.where}, 'image'"
        if value == ():
            raise DataError(f"{where}: no image")
        return tuple(_stored(item, where) for item in (value if isinstance(value, tuple) else [value]))

    def in_split(self, split: str) -> "Record":
        return replace(self, split=split)

    def with_fields(self, **content: Any) -> "Record":
        """Return a copy with these fields added or replaced."""
        return replace(self, content={**self.content, **content})

    def find_image(self, folder: Path, *names: str) -> Path:
        """Return the first of the files that exists in the data folder, see `find_inside`."""
        return find_inside(folder, names, self.where)

    def find_video(self, folder: Path, *names: str) -> Path:
        """The same for a video."""
        return find_inside(folder, names, self.where, "video")


def _stored(value: Any, where: str) -> StoredImage:
    if not isinstance(value, StoredImage):
        raise DataError(f"{where}: expected an image, found {fields.describe_value(value)}")
    return value


def json_records(path: Path, *keys: str) -> list[Record]:
    """Return the records of a JSON list, found under `keys` if there are any.

    An object in place of the list maps IDs to records; each record gets its ID as `id`.
    """
    content, where = read_json(path), str(path)
    for key in keys:
        content = field(content, key, where)
    where = ", ".join((where, *keys))
    if isinstance(content, dict):
        return [Record(f"{where}[{key!r}]", _with_id(key, record, where)) for key, record in content.items()]
    if not isinstance(content, list):
        raise DataError(f"{where}: expected a list of questions, found {fields.describe_value(content)}")
    return [_object(Record(f"{where}[{number}]", record)) for number, record in enumerate(content)]


def line_records(path: Path, then: str = "") -> list[Record]:
    """Return the records of a file with one JSON object per line. then: the error's advice about other lines."""
    return [
        _object(Record(f"{path}, line {number}", parse_json(line, f"{path}, line {number}", then, one_line=True)), then)
        for number, line in enumerate(read_lines(path), start=1)
        if line.strip()
    ]


def tsv_records(path: Path) -> list[Record]:
    """Return the records of a table of tab-separated values with a header line, quoted as spreadsheets do. Blank lines
    are skipped."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # images are base64 in one field; the default is 128 KiB
    rows: Any = csv.reader(io.StringIO(read_text(path)), delimiter="\t")
    records = []
    try:
        names = _column_names(rows, path)
        for row in rows:
            if not row:
                continue
            where = f"{path}, line {rows.line_num}"
            if len(row) != len(names):
                raise DataError(f"{where}: {len(row)} fields where line 1 names {len(names)}; is the line broken?")
            records.append(Record(where, dict(zip(names, row, strict=True))))
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: broken table: {error}") from error
    return records


def _column_names(rows: Iterator[list[str]], path: Path) -> list[str]:
    names = next(rows, None)
    if names is None:
        raise DataError(f"{path}, line 1: empty; expected a line of column names")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}, line 1: two columns are named {twice!r}; rename one of them")
    return names


def _with_id(key: str, record: Any, where: str) -> dict[str, Any]:
    return {"id": key, **_object(Record(f"{where}[{key!r}]", record)).content}


def _object(record: Record, then: str = "") -> Record:
    if not isinstance(record.content, dict):
        raise DataError(f"{record.where}: expected an object, found {fields.describe_value(record.content)}{then}")
    return record


@dataclass(frozen=True)
class Base64:
    """An image inside a text table. where: its row, for errors."""

    where: str
    name: str
    text: str

    def __str__(self) -> str:
        return self.where

    @property
    def content(self) -> str:
        """The same for every copy of an image."""
        return self.text

    def read_bytes(self) -> bytes:
        try:
            return base64.b64decode(self.text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"{self.where}: broken base64 image ({error})") from error
