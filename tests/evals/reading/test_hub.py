"""Parquet and Arrow files of the Hub, read lazily."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.files.sets import IMAGE, png, write_parquet

from tokenprune.errors import DataError
from tokenprune.evals.reading.hub import Cell, split_of, table_records
from tokenprune.evals.reading.images import open_image, size_of
from tokenprune.evals.tasks import TASKS


def test_save_to_disk(tmp_path: Path) -> None:
    """`datasets` writes an Arrow stream for each split; the same questions as from Parquet."""
    row = {"question_id": 7, "question": "what is written?", "answers": ["stop"] * 10, "image_id": "a"}
    write_parquet(tmp_path / "hub" / "data" / "validation-00000-of-00001.parquet", [row, row | {"question_id": 8}])
    table = pq.read_table(tmp_path / "hub" / "data" / "validation-00000-of-00001.parquet")
    saved = tmp_path / "saved" / "validation" / "data-00000-of-00001.arrow"
    saved.parent.mkdir(parents=True)
    with pa.OSFile(str(saved), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    ours, theirs = (TASKS["textvqa"].load(tmp_path / form) for form in ("saved", "hub"))
    assert [(question.id, question.split, question.text) for question in ours] == [
        (question.id, question.split, question.text) for question in theirs
    ]
    assert ours[1].images[0].read_bytes() == theirs[1].images[0].read_bytes() == png()
    assert [question.id for question in TASKS["textvqa"].load(saved.parent)] == ["textvqa-7", "textvqa-8"]
    pointer = saved.with_name("data-00001-of-00002.arrow")
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"00002\.arrow: not a complete arrow file .*; download it again"):
        table_records(pointer)


def test_images_are_read_when_they_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening one of three images reads one row group, and reading the questions reads none."""
    write_parquet(tmp_path / "a.parquet", [{"n": number} for number in range(3)])
    asked: list[Any] = []
    read = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
        asked.append(group)
        return read(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    records = table_records(tmp_path / "a.parquet")
    assert [record["n"] for record in records] == [0, 1, 2]
    assert asked == []
    assert open_image(records[1]["image"]).size == size_of(records[1]["image"]) == (60, 40)
    assert asked == [1]
    assert str(records[1]["image"]) == f"{tmp_path / 'a.parquet'}, row 1, image"


def test_lists_and_missing_images(tmp_path: Path) -> None:
    image = {"bytes": png(), "path": None}
    table = pa.table(
        {
            "one": pa.array([image, None], IMAGE),
            "several": pa.array([[image, image], []], pa.list_(IMAGE)),
            "pair": pa.array([[image, image]] * 2, pa.list_(IMAGE, 2)),
            "named": pa.array([{"bytes": None, "path": "a.png"}] * 2, IMAGE),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = table_records(tmp_path / "a.parquet")
    assert second["one"] is None
    assert (len(first["several"]), second["several"]) == (2, ())
    assert len(first["pair"]) == 2
    assert open_image(second["pair"][1]).size == (60, 40)
    assert isinstance(first["several"][1], Cell)
    assert first["several"][1].name == "a.parquet:0:1"
    with pytest.raises(ValueError, match=r"a\.parquet, row 1, named: the table holds only the image's path"):
        open_image(second["named"])


def test_images_without_paths_and_lists_with_gaps(tmp_path: Path) -> None:
    """As in tables that were not written by `datasets`."""
    image = {"bytes": png()}
    kind = pa.struct([("bytes", pa.binary())])
    table = pa.table({"one": pa.array([image], kind), "several": pa.array([[image, None]], pa.list_(IMAGE))})
    pq.write_table(table, tmp_path / "a.parquet")
    (record,) = table_records(tmp_path / "a.parquet")
    assert open_image(record["one"]).size == open_image(record["several"][0]).size == (60, 40)
    with pytest.raises(DataError, match=r"a\.parquet, row 0, several\[1\]: null in place of an image"):
        record["several"][1].read_bytes()


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/validation-00000-of-00068.parquet", "validation"),
        ("testA-00000-of-00001-0a1b2c.parquet", "testA"),
        ("mmstar.parquet", ""),
        ("test/data-00000-of-00002.arrow", "test"),
    ],
)
def test_split_of(path: str, split: str) -> None:
    assert split_of(Path(path)) == split


def test_a_split_that_was_downloaded_in_part(tmp_path: Path) -> None:
    """The accuracy on some of its files would be mistaken for that of the set. Splits that are not used may be
    incomplete."""

    def write(name: str, number: int) -> None:
        row = {"question": "what is written?", "answers": ["stop"] * 10, "image_id": "a", "question_id": number}
        write_parquet(tmp_path / "data" / f"{name}.parquet", [row])

    write("validation-00001-of-00003-0a1b", 1)
    write("test-00000-of-00001", 2)
    write("train-00003-of-00009", 3)
    task = TASKS["textvqa"]
    assert [one.id for one in task.load(tmp_path, "test")] == ["textvqa-2"]
    for split in (None, "validation"):
        with pytest.raises(DataError, match=r"data: holds 1 of the 3 files of validation, .*00000-of-00003 and 1 more"):
            task.load(tmp_path, split)
    write("validation-00000-of-00003", 4)
    with pytest.raises(DataError, match=r"holds 2 of .*, but not validation-00002-of-00003\. Download"):
        task.load(tmp_path)
    write("validation-00002-of-00003", 5)
    assert len(task.load(tmp_path)) == 4
    (tmp_path / "alone").mkdir()
    (tmp_path / "data" / "train-00003-of-00009.parquet").rename(tmp_path / "alone" / "train-3.parquet")
    assert [one.id for one in task.load(tmp_path / "alone")] == ["textvqa-3"]
