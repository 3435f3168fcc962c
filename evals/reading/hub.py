"""Read sets from the Hugging Face Hub or saved by `datasets`: Parquet or Arrow files with embedded images.

A split's files are named `SPLIT-00000-of-00003.parquet` on the Hub, and `SPLIT/data-00000-of-00003.arrow` by
`save_to_disk`. Images are columns of {bytes, path}, or of lists of those. Their bytes are read when an image is opened,
one row group at a time, so a set need not fit into memory.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tokenprune.errors import DataError
from tokenprune.evals.reading.records import Record

#: A part of a split. On the Hub, each may have its own digest after the numbers.
_SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})(-\w+)?\.(parquet|arrow)")


@dataclass(frozen=True)
class Cell:
    """An image in a table: its file, column and row, and its index if the column holds lists."""

    path: Path
    column: str
    row: int
    index: int | None = None

    def __str__(self) -> str:
        return f"{self.path}, row {self.row}, {self.column}" + ("" if self.index is None else f"[{self.index}]")

    @property
    def name(self) -> str:
        return f"{self.path.name}:{self.row}" + ("" if self.index is None else f":{self.index}")

    @property
    def content(self) -> str:
        """The same for every copy of an image: a set has one in each row about it."""
        return _digest(self, _version(self.path))

    def read_bytes(self) -> bytes:
        value = _open(self.path, _value, self.column, self.row)
        image = value if self.index is None else value[self.index]
        if image is None:
            raise DataError(f"{self}: null in place of an image; leave it out of the list")
        content = image.get("bytes")
        if content is None:
            raise DataError(f"{self}: the table holds only the image's path; save the set with images embedded")
        return content


def table_records(path: Path) -> list[Record]:
    """Return the rows of a file, with a `Cell` in place of each image and a tuple of cells in place of a list."""
    split = split_of(path)
    return [Record(f"{path}, row {number}", row, split) for number, row in enumerate(_open(path, _rows))]


def _rows(path: Path) -> list[dict[str, Any]]:
    table = _without_images(path)
    if len(set(table.column_names)) < len(table.column_names):
        raise DataError(f"{path}: two columns have the same name; rename one of them")
    images = [name for name in table.column_names if _is_image(table.schema.field(name).type)]
    plain = table.drop_columns(images).to_pylist()
    rows = [dict(row) for row in plain] if plain else [{} for _ in range(table.num_rows)]
    for name in images:
        for number, (row, shape) in enumerate(zip(rows, _shapes(table[name]), strict=True)):
            if isinstance(shape, bool):
                row[name] = Cell(path, name, number) if shape else None
            else:
                row[name] = tuple(Cell(path, name, number, index) for index in range(shape or 0))
    return rows


def split_of(path: Path) -> str:
    """Return the split in a file's name, "" if there is none."""
    if path.suffix == ".arrow":
        return path.parent.name
    shard = _SHARD.fullmatch(path.name)
    return shard["split"] if shard else ""


def check_complete(files: Iterable[Path]) -> None:
    """Raise DataError if part of a split is missing, as after an interrupted download: file names say how many there
    are. An accuracy on some of them would pass for the set's."""
    splits: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        if shard := _SHARD.fullmatch(file.name):
            split = file.parent, shard["split"], int(shard["count"])
            splits.setdefault(split, set()).add(int(shard["number"]))
    for (folder, name, count), numbers in splits.items():
        missing = sorted(set(range(count)) - numbers)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(
                f"{folder}: holds {len(numbers)} of the {count} files of {name}, but not {name}-{missing[0]:05}-of-"
                f"{count:05}{more}. Download the rest; or, to ask about these alone, copy them to a folder of their "
                f"own, with names without -of-"
            )


def _open(path: Path, read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(path, *arguments)
    except (pa.ArrowException, OSError, ValueError) as error:  # a ValueError for text that is not UTF-8
        if isinstance(error, DataError) or (isinstance(error, OSError) and error.filename is not None):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a complete {path.suffix[1:]} file ({reason}); download it again") from error


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return pa.types.is_struct(kind) and {child.name for child in kind} <= {"bytes", "path"}


def _shapes(column: pa.ChunkedArray) -> list[Any]:
    """Return, for each row, whether there is an image, or the number of images."""
    return (
        column.is_valid() if pa.types.is_struct(column.type) else pc.call_function("list_value_length", [column])
    ).to_pylist()


def _without_images(path: Path) -> pa.Table:
    """A table without the bytes of its images, if their paths tell whether there is an image."""
    if path.suffix == ".arrow":
        return _arrow(path, _version(path))
    file = pq.ParquetFile(path)
    schema = file.schema
    leaves = [schema.column(number).path for number in range(len(schema))]
    large = {leaf for leaf in leaves if leaf.endswith(".bytes") and f"{leaf.removesuffix('bytes')}path" in leaves}
    return file.read(columns=[leaf for leaf in leaves if leaf not in large])


def _value(path: Path, column: str, row: int) -> Any:
    if path.suffix == ".arrow":
        return _arrow(path, _version(path))[column][row].as_py()
    metadata = pq.ParquetFile(path).metadata
    for group in range(metadata.num_row_groups):
        n_rows = metadata.row_group(group).num_rows
        if row < n_rows:
            return _row_group(path, group, column, _version(path))[row].as_py()
        row -= n_rows
    raise IndexError(f"{path}: no row {row}")


def _version(path: Path) -> tuple[int, int]:
    """Return what changes when a file is rewritten, so that nothing of the old one is reused."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@cache
def _digest(cell: Cell, version: tuple[int, int]) -> str:
    return hashlib.sha256(cell.read_bytes()).hexdigest()[:32]


@lru_cache(maxsize=2)
def _row_group(path: Path, group: int, column: str, version: tuple[int, int]) -> pa.ChunkedArray:
    return pq.ParquetFile(path).read_row_group(group, columns=[column])[column]


@lru_cache(maxsize=64)
def _arrow(path: Path, version: tuple[int, int]) -> pa.Table:
    """Return a memory map of the table, which reads nothing before it is accessed."""
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
