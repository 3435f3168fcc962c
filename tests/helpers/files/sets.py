"""Files as in published sets: images, JSON, JSON lines, tables, Parquet."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from helpers.files.evals import sample_image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png() -> bytes:
    file = io.BytesIO()
    sample_image().save(file, "PNG")
    return file.getvalue()


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sample_image().save(path, "PNG" if path.suffix != ".jpg" else "JPEG")


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_lines(path: Path, records: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_tsv(path: Path, records: Sequence[dict[str, Any]]) -> None:
    lines = ["\t".join(records[0]), *("\t".join(str(value) for value in record.values()) for record in records)]
    path.write_text("\n".join(lines) + "\n")


def write_parquet(path: Path, records: Sequence[dict[str, Any]], **columns: pa.DataType) -> None:
    """Write records, each with an image unless it sets one or none. Row groups have one row, as with large images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    embedded = {"bytes": png(), "path": "a.png"}
    arrays = {}
    for name in {name: None for record in records for name in record} | {"image": None}:
        values = [record.get(name, embedded if name == "image" else None) for record in records]
        if name == "image":
            arrays[name] = pa.array(values, pa.list_(IMAGE) if isinstance(values[0], list) else IMAGE)
        else:
            arrays[name] = pa.array(values, columns.get(name))
    pq.write_table(pa.table(arrays), path, row_group_size=1)


def write_plain_parquet(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write the table of a set whose images or videos are files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(records)), path)
