"""Recorded observations: what is read of both formats, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.files.policies import WIDTH, write_lerobot, write_observations

from tokenprune import DataError
from tokenprune.evals.actions.observations import load_observations


def test_a_folder(tmp_path: Path) -> None:
    found = load_observations(write_observations(tmp_path))
    assert [one.episode for one in found] == [0, 1, 2]
    assert found[2].state == pytest.approx((0.2,) * WIDTH)
    assert {one.task for one in found} == {"push the cup"}
    assert [image.size for image in found[0].open_images()] == [(60, 40)] * 2
    assert found[0].open_images()[0].tobytes() != found[1].open_images()[0].tobytes()


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_a_lerobot_data_set(tmp_path: Path, version: str) -> None:
    found = load_observations(write_lerobot(tmp_path / "set", version))
    assert [one.episode for one in found] == [0, 0, 1, 1]
    assert found[0].state == (0.5,) * WIDTH
    assert found[0].task == "push the cup"
    assert [image.size for image in found[0].open_images()] == [(60, 40)] * 2
    assert "front" in str(found[0].images[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": ["none.png", "2_1.png"]}, "observations.jsonl, line 3: missing image"),
        ({"images": ["../a.png"]}, "outside the data folder"),
        ({"images": []}, "expected a list"),
        ({"images": ["2_0.png"]}, "1 images, and .*line 1 has 2"),
        ({"state": [0.1, "x"]}, r"'state'\[1\]: expected a number"),
        ({"state": [0.1]}, "a state of 1 numbers, and .*line 1 has 7"),
        ({"state": None}, "a state of 0 numbers"),
        ({"task": 3}, "'task': expected text"),
        ({"episode": "x"}, "'episode': expected a whole number"),
    ],
)
def test_broken_lines(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_observations(write_observations(tmp_path, **changes))


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_observations(tmp_path / "none")
    with pytest.raises(DataError, match=r"needs observations\.jsonl"):
        load_observations(tmp_path)
    (tmp_path / "observations.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no observation"):
        load_observations(tmp_path)
    with pytest.raises(DataError, match=r"LeRobot v3.0, and only v2.0 and v2.1 are read"):
        load_observations(write_lerobot(tmp_path / "new", "v3.0"))
    with pytest.raises(DataError, match="are videos, which are not decoded"):
        load_observations(write_lerobot(tmp_path / "videos", camera="video"))
    with pytest.raises(DataError, match="nothing to prune"):
        load_observations(write_lerobot(tmp_path / "blind", camera="float32"))


def test_a_broken_lerobot_data_set(tmp_path: Path) -> None:
    folder = write_lerobot(tmp_path / "set")
    (folder / "meta" / "tasks.jsonl").write_text('{"task_index": 1, "task": "push the cup"}\n')
    with pytest.raises(DataError, match="row 0: task_index 0 is not in"):
        load_observations(folder)
    (folder / "meta" / "tasks.jsonl").write_text('{"task_index": 0, "task": "push the cup"}\n')
    file = folder / "data" / "chunk-000" / "episode_000001.parquet"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DataError, match=r"episode_000001.parquet: not a complete parquet file"):
        load_observations(folder)
    for path in folder.glob("data/*/*"):
        path.unlink()
    with pytest.raises(DataError, match="download the data set again"):
        load_observations(folder)
