"""Break the files of a set in every way that a field, a file or a path can be broken."""

import csv
import io
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

DEEP = "[" * 100_000 + "]" * 100_000
HUGE = "9" * 5_000
WRITES_NUL = sys.version_info >= (3, 11)  # whether Python's csv writes it
#: Type of a field's value -> values of the wrong type.
WRONG: dict[type, tuple[Any, ...]] = {
    str: (None, 3, True, float("nan"), [], ["x"], {}),
    int: (None, "x", True, 1.5, float("nan"), [], {}),
    float: (None, "x", True, float("nan"), float("inf"), [], {}),
    bool: (None, "x", 3, [], {}),
    list: (None, 3, "x", {}, [None], [[]], []),
    dict: (None, 3, "x", [], {}),
}


class Mutation(NamedTuple):
    """A broken version of a file: `what` was done to it, and its new content; None removes the file."""

    path: Path
    what: str
    content: bytes | None


def mutations(folder: Path) -> Iterator[Mutation]:
    """Yield broken versions of every file in a set's folder, one at a time."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        yield from of_bytes(path, content)
        if path.suffix in (".json", ".jsonl"):
            yield from of_json(path, content.decode())
        elif path.suffix == ".p":
            for what, value in of_value(pickle.loads(content)):
                yield Mutation(path, what, pickle.dumps(value))
            yield Mutation(path, "runs code", b"cos\nsystem\n(S'true'\ntR.")
        elif path.suffix == ".tsv":
            yield from of_tsv(path, content.decode())
        elif path.suffix == ".parquet":
            yield from of_parquet(path)


def of_bytes(path: Path, content: bytes) -> Iterator[Mutation]:
    yield Mutation(path, "removed", None)
    yield Mutation(path, "empty", b"")
    yield Mutation(path, "truncated", content[: len(content) * 3 // 5])
    yield Mutation(path, "binary", b"\xff\xfe\x00\x01" * 50)
    if path.suffix in (".json", ".jsonl", ".tsv", ".txt"):
        yield Mutation(path, "UTF-16", content.decode().encode("utf-16"))


def of_json(path: Path, text: str) -> Iterator[Mutation]:
    """Yield broken versions of a JSON file. Of a file with JSON lines, only the first line is broken."""
    first, *others = text.splitlines(keepends=True)
    yield Mutation(path, "deeply nested", DEEP.encode())
    yield Mutation(path, "one deeply nested value", f'{{"a": {DEEP}}}'.encode())
    yield Mutation(path, "a huge integer", f"[{HUGE}]".encode())
    for what, value in of_value(json.loads(first)):
        end = "\n" if first.endswith("\n") else ""
        yield Mutation(path, what, (json.dumps(value) + end + "".join(others)).encode())
    yield Mutation(path, "every record twice", (first + "".join(others)).encode() * 2)


def of_value(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the value with each of its parts in turn missing or of a wrong type. Of a list, only the first item is
    changed."""
    for wrong in WRONG.get(type(value), ()):
        if wrong != value:
            yield f"{name or 'all'}: {wrong!r}", wrong
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"{name}.{key}: missing", {other: it for other, it in value.items() if other != key}
            for what, changed in of_value(part, f"{name}.{key}"):
                yield what, {**value, key: changed}
    elif isinstance(value, list) and value:
        if isinstance(value[0], dict):
            yield f"{name}: every record twice", [record for record in value for _ in range(2)]
        for what, changed in of_value(value[0], f"{name}[0]"):
            yield what, [changed, *value[1:]]


def of_tsv(path: Path, text: str) -> Iterator[Mutation]:
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))

    def written(records: list[dict[str, Any]], names: list[str]) -> bytes:
        file = io.StringIO()
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([names, *([record[name] for name in names] for record in records)])
        return file.getvalue().encode()

    names = list(rows[0])
    yield Mutation(path, "every record twice", written([row for row in rows for _ in range(2)], names))
    yield Mutation(path, "a column twice", written(rows, [*names, names[0]]))
    for name in names:
        yield Mutation(path, f"{name}: missing", written(rows, [other for other in names if other != name]))
        for wrong in ("", "x\0", "1e999") if WRITES_NUL else ("", "1e999"):
            yield Mutation(path, f"{name}: {wrong!r}", written([rows[0] | {name: wrong}, *rows[1:]], names))


def of_parquet(path: Path) -> Iterator[Mutation]:
    table = pq.read_table(path)

    def written(changed: pa.Table) -> bytes:
        file = io.BytesIO()
        pq.write_table(changed, file, row_group_size=1)
        return file.getvalue()

    yield Mutation(path, "every record twice", written(pa.concat_tables([table, table])))
    yield Mutation(path, "no rows", written(table.slice(0, 0)))
    for number, name in enumerate(table.column_names):
        yield Mutation(path, f"{name}: missing", written(table.remove_column(number)))
        values = table[name].to_pylist()
        for wrong in _wrong_columns(name, values):
            changed = table.set_column(number, name, pa.array(wrong[1]))
            yield Mutation(path, f"{name}: {wrong[0]}", written(changed))


def _wrong_columns(name: str, values: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    yield "null", [None] * len(values)
    yield "a list of lists", [[[1.5]]] * len(values)
    yield "NaN", [float("nan")] * len(values)
    yield "a truth value", [True] * len(values)
    if isinstance(values[0], str):
        yield "a number", [3] * len(values)
    if isinstance(values[0], (int, list)):
        yield "text", ["x"] * len(values)
    first: Any = values[0]
    one: Any = first[0] if isinstance(first, list) and first else first
    if (isinstance(one, dict) and "bytes" in one) or (name == "image" and not one):
        broken: list[tuple[str, Any]] = [
            ("no image", b"x" * 99),
            ("cut", one["bytes"][:60] if one else b""),
            ("gone", None),
        ]
        for what, content in broken:
            cell = {"bytes": content, "path": "a.png"}
            yield what, [[cell] if isinstance(value, list) else cell for value in values]
