"""Read recorded observations: a folder with observations.jsonl, or a LeRobot data set (v2.0, v2.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tokenprune.errors import DataError
from tokenprune.evals.tasks._read.fields import as_number, shown
from tokenprune.evals.tasks._read.hub import table_records
from tokenprune.evals.tasks._read.images import StoredImage, open_image
from tokenprune.evals.tasks._read.records import Record, line_records
from tokenprune.evals.tasks._read.text import read_json

#: One observation a line: {"images": ["front.jpg", ...], "state": [...], "task": "..."}.
FILE = "observations.jsonl"
INFO, TASKS = Path("meta", "info.json"), Path("meta", "tasks.jsonl")
VERSIONS = ("v2.0", "v2.1")
STATE = "observation.state"


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one moment.

    where: its file and place, for errors. images: of every camera, in the same order in all observations. state: of the
    robot, None if none is recorded. episode: the recording that it is from; moments of one are alike.
    """

    where: str
    images: tuple[StoredImage, ...]
    state: tuple[float, ...] | None
    task: str
    episode: int

    def open_images(self) -> list[Image.Image]:
        return [open_image(image) for image in self.images]


def load_observations(folder: Path) -> list[Observation]:
    """Return all observations of a folder. DataError, naming file and place, for anything wrong in it."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of observations")
    if (folder / FILE).is_file():
        found = [_of_line(folder, number, record) for number, record in enumerate(line_records(folder / FILE))]
    elif (folder / INFO).is_file():
        found = _lerobot(folder)
    else:
        raise DataError(
            f'{folder}: no observations; needs {FILE}, with lines like {{"images": ["front.jpg"], "state": [0.1], '
            f'"task": "pick up the cup"}}, or a LeRobot data set with {INFO}'
        )
    if not found:
        raise DataError(f"{folder}: holds no observation")
    first = found[0]
    for one in found:
        if len(one.images) != len(first.images):
            raise DataError(
                f"{one.where}: {len(one.images)} images, and {first.where} has {len(first.images)}; a policy gets the "
                f"same cameras each time"
            )
        if (one.state is None) != (first.state is None) or len(one.state or ()) != len(first.state or ()):
            raise DataError(
                f"{one.where}: a state of {len(one.state or ())} numbers, and {first.where} has "
                f"{len(first.state or ())}"
            )
    return found


def _of_line(folder: Path, number: int, record: Record) -> Observation:
    images = tuple(record.find_image(folder, name) for name in record.texts("images"))
    state = _numbers(record["state"], f"{record.where}, 'state'") if record.has("state") else None
    episode = record.whole("episode") if record.has("episode") else number
    return Observation(record.where, images, state, record.text("task"), episode)


def _lerobot(folder: Path) -> list[Observation]:
    info = Record(str(folder / INFO), read_json(folder / INFO))
    version = info.text("codebase_version")
    if version not in VERSIONS:
        raise DataError(
            f"{info.where}: LeRobot {version}, and only {' and '.join(VERSIONS)} are read; convert the data set with "
            f"LeRobot, or write its frames to {FILE}"
        )
    features = info["features"]
    if not isinstance(features, dict):
        raise DataError(f"{info.where}, 'features': expected an object, found {shown(features)}")
    kinds = {name: Record(f"{info.where}, {name!r}", one).text("dtype") for name, one in features.items()}
    cameras = sorted(name for name, kind in kinds.items() if kind == "image")
    videos = sorted(name for name, kind in kinds.items() if kind == "video")
    if videos:
        raise DataError(
            f"{info.where}: {', '.join(videos)} are videos, which are not decoded here; record the data set with "
            f"use_videos=False, or write its frames to {FILE}"
        )
    if not cameras:
        raise DataError(f"{info.where}: no feature of dtype 'image', so there is nothing to prune")
    tasks = {record.whole("task_index"): record.text("task") for record in line_records(folder / TASKS)}
    files = sorted(folder.glob("data/*/episode_*.parquet"))
    if not files:
        raise DataError(f"{folder}: no data/*/episode_*.parquet; download the data set again")
    return [_of_row(record, cameras, tasks, STATE in kinds) for file in files for record in table_records(file)]


def _of_row(record: Record, cameras: Sequence[str], tasks: dict[int, str], has_state: bool) -> Observation:
    number = record.whole("task_index")
    if number not in tasks:
        raise DataError(f"{record.where}: task_index {number} is not in {TASKS}")
    state = _numbers(record[STATE], f"{record.where}, {STATE!r}") if has_state else None
    images = tuple(record.image(camera) for camera in cameras)
    return Observation(record.where, images, state, tasks[number], record.whole("episode_index"))


def _numbers(values: Any, where: str) -> tuple[float, ...]:
    if not isinstance(values, list) or not values:
        raise DataError(f"{where}: expected a list of numbers, found {shown(values)}")
    return tuple(as_number(value, f"{where}[{number}]") for number, value in enumerate(values))
