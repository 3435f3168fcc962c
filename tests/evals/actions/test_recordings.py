"""Recorded observations: both formats are read, and broken files give an error."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers.files.policies import CAMERAS, WIDTH, write_lerobot, write_observations
from helpers.files.videos import levels

from tokenprune import DataError
from tokenprune.evals.actions.recordings import load_observations


def test_a_folder_of_observations_is_read(tmp_path: Path) -> None:
    found = load_observations(write_observations(tmp_path))
    assert [one.episode for one in found] == [0, 1, 2]
    assert found[2].state == pytest.approx((0.2,) * WIDTH)
    assert {one.task for one in found} == {"push the cup"}
    assert [image.size for image in found[0].open_images()] == [(60, 40)] * 2
    assert found[0].open_images()[0].tobytes() != found[1].open_images()[0].tobytes()


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_a_lerobot_data_set(tmp_path: Path, version: str) -> None:
    found = load_observations(write_lerobot(tmp_path / "set", version))
    assert [one.episode for one in found] == [0, 0, 1, 1]
    assert found[0].state == (0.5,) * WIDTH
    assert found[0].task == "push the cup"
    assert [image.size for image in found[0].open_images()] == [(60, 40)] * 2
    assert "front" in str(found[0].images[0])


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_a_lerobot_data_set_with_videos(tmp_path: Path, version: str) -> None:
    """Every row has its own frame of both cameras, from its episode's file or from its part of a shared file."""
    found = load_observations(write_lerobot(tmp_path / "set", version, "video"))
    assert [one.episode for one in found] == [0, 0, 1, 1]
    assert [levels(one.open_images()) for one in found] == [[20, 240], [60, 200], [100, 160], [140, 120]]
    assert found[3].state == (0.5,) * WIDTH
    assert found[3].task == "push the cup"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": ["none.png", "2_1.png"]}, "observations.jsonl, line 3: missing image"),
        ({"images": ["../a.png"]}, "outside the data folder"),
        ({"images": []}, "expected a list"),
        ({"images": ["2_0.png"]}, "1 images, but .*line 1 has 2"),
        ({"state": [0.1, "x"]}, r"'state'\[1\]: expected a number"),
        ({"state": [0.1]}, "a state of 1 numbers, but .*line 1 has 7"),
        ({"state": None}, "a state of 0 numbers"),
        ({"task": 3}, "'task': expected text"),
        ({"episode": "x"}, "'episode': expected a whole number"),
    ],
)
def test_broken_lines_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_observations(write_observations(tmp_path, **changes))


def test_folders_without_observations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_observations(tmp_path / "none")
    with pytest.raises(DataError, match=r"needs observations\.jsonl"):
        load_observations(tmp_path)
    (tmp_path / "observations.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no observation"):
        load_observations(tmp_path)
    with pytest.raises(DataError, match=r"LeRobot v4.0, and only v2.0, v2.1, v3.0 are read"):
        load_observations(write_lerobot(tmp_path / "new", "v4.0"))
    with pytest.raises(DataError, match="nothing to prune"):
        load_observations(write_lerobot(tmp_path / "blind", camera="float32"))


def test_a_broken_lerobot_data_set(tmp_path: Path) -> None:
    folder = write_lerobot(tmp_path / "set")
    (folder / "meta" / "tasks.jsonl").write_text('{"task_index": 1, "task": "push the cup"}\n')
    with pytest.raises(DataError, match="row 0: task_index 0 is not among"):
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


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_broken_videos_of_a_lerobot_data_set(tmp_path: Path, version: str) -> None:
    folder = write_lerobot(tmp_path / "set", version, "video")
    video = sorted(folder.glob("videos/**/*.mp4"))[-1]
    content = video.read_bytes()
    video.write_bytes(content[:100])
    with pytest.raises(DataError, match=rf"{video.name}: not a complete video"):
        load_observations(folder)[-1].open_images()
    video.unlink()
    with pytest.raises(DataError, match=rf"parquet, row \d: missing video .*{video.name}"):
        load_observations(folder)
    video.write_bytes(content)
    info = folder / "meta" / "info.json"
    for wrong, said in (("{none}.mp4", "names no file"), ("../{video_key}.mp4", "outside the data folder")):
        known = json.loads(info.read_text()) | {"video_path": wrong}
        broken = write_lerobot(tmp_path / wrong.strip("./{}"), version, "video")
        (broken / "meta" / "info.json").write_text(json.dumps(known))
        with pytest.raises(DataError, match=said):
            load_observations(broken)


def test_an_episode_that_is_not_described(tmp_path: Path) -> None:
    folder = write_lerobot(tmp_path / "set", "v3.0", "video")
    path = folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 1), path)
    with pytest.raises(DataError, match="row 2: episode 1 is not in meta/episodes"):
        load_observations(folder)
    pq.write_table(table.drop_columns([f"videos/{CAMERAS[1]}/from_timestamp"]), path)
    with pytest.raises(DataError, match=f"row 0: no 'videos/{CAMERAS[1]}/from_timestamp'"):
        load_observations(folder)
