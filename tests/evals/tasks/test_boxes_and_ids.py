"""Boxes that no answer can hit and duplicate IDs are errors."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.files.evals import write_refcoco, write_vqav2
from helpers.files.tasks import SETS

from tokenprune.errors import DataError
from tokenprune.evals.tasks import TASKS

BOXES = [[9, 9, 0, 4], [9, 9, 5, -4], [0, 0, float("nan"), 4], "1234", None, [70, 0, 5, 5], [0, 0, "5", 5], [1, 2, 3]]


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_boxes(tmp_path: Path, box: Any) -> None:
    write_refcoco(tmp_path)
    path = tmp_path / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["bbox"] = box
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"instances\.json"):
        TASKS["refcoco"].load(tmp_path)


@pytest.mark.parametrize(
    ("task", "name", "key"),
    [
        ("refcoco", "instances.json", "annotations"),
        ("refcoco", "instances.json", "images"),
        ("vqav2", "v2_mscoco_val2014_annotations.json", "annotations"),
        ("vqav2", "v2_OpenEnded_mscoco_val2014_questions.json", "questions"),
    ],
)
def test_every_id_twice(tmp_path: Path, task: str, name: str, key: str) -> None:
    (write_refcoco if task == "refcoco" else write_vqav2)(tmp_path)
    content = json.loads((tmp_path / name).read_text())
    content[key] *= 2
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"{name}.* appears twice"):
        TASKS[task].load(tmp_path)


@pytest.mark.parametrize("name", ["chartqa", "scienceqa", "ai2d"])
def test_records_without_ids_in_two_saved_splits(tmp_path: Path, name: str) -> None:
    """`datasets` saves both under the same name, in different folders."""
    SETS[name, "hub"](tmp_path / "hub")
    (downloaded,) = (tmp_path / "hub").rglob("*.parquet")
    table = pq.read_table(downloaded)
    for split in ("validation", "test"):
        (tmp_path / "saved" / split).mkdir(parents=True)
        path = tmp_path / "saved" / split / "data-00000-of-00001.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    both = [question.id for question in TASKS[name].load(tmp_path / "saved")]
    one = [question.id for question in TASKS[name].load(tmp_path / "saved", "test")]
    assert set(one) < set(both)
    assert len(both) == 2 * len(one) == 2 * len(TASKS[name].load(tmp_path / "hub"))
