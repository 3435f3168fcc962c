"""Read LeRobot data sets (https://github.com/huggingface/lerobot) of versions 2.0, 2.1 and 3.0.

A row of `data/*/*.parquet` is a moment of an episode. A camera is a column of images, or a folder of videos: one video
per episode in version 2, several episodes per video in version 3, whose start times are in `meta/episodes`. Depth maps
are left out. The layout is that of LeRobot's own reader, and was not checked against downloaded sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tokenprune.errors import DataError
from tokenprune.evals.actions.observation import Observation, numbers
from tokenprune.evals.reading.fields import describe_value
from tokenprune.evals.reading.hub import table_records
from tokenprune.evals.reading.images import StoredImage
from tokenprune.evals.reading.records import Record, line_records
from tokenprune.evals.reading.videos import VideoFrame
from tokenprune.text_files import read_json

INFO = Path("meta", "info.json")
#: The file of a version's tasks, the instructions to the robot.
TASKS = {"v2.0": "tasks.jsonl", "v2.1": "tasks.jsonl", "v3.0": "tasks.parquet"}
#: The task column in version 3, the index of a pandas table: with a name, and from before it had one.
TASK_COLUMNS = ("task", "__index_level_0__")
STATE = "observation.state"

#: Finds what a camera saw in a row.
Camera = Callable[[Record], "StoredImage | VideoFrame"]


def lerobot_observations(folder: Path) -> list[Observation]:
    """Return a data set's observations, in the order of its files. DataError, naming file and place, for anything
    wrong in it, and for a version that is not read."""
    info = Record(str(folder / INFO), read_json(folder / INFO))
    version = info.text("codebase_version")
    if version not in TASKS:
        raise DataError(
            f"{info.where}: LeRobot {version}, and only {', '.join(TASKS)} are read; convert the data set with "
            f"LeRobot, or write its frames to observations.jsonl"
        )
    kinds = _kinds(info)
    cameras = _cameras(folder, info, version, kinds)
    tasks = _tasks(folder / "meta" / TASKS[version])
    files = sorted(folder.glob("data/*/*.parquet"))
    if not files:
        raise DataError(f"{folder}: no data/*/*.parquet; download the data set again")
    return [_of_row(row, cameras, tasks, STATE in kinds) for file in files for row in table_records(file)]


def _kinds(info: Record) -> dict[str, str]:
    """Return the type of every feature but depth maps."""
    features = info["features"]
    if not isinstance(features, dict):
        raise DataError(f"{info.where}, 'features': expected an object, found {describe_value(features)}")
    records = {name: Record(f"{info.where}, {name!r}", feature) for name, feature in features.items()}
    return {name: record.text("dtype") for name, record in records.items() if not _is_depth(record)}


def _is_depth(feature: Record) -> bool:
    known = feature.content.get("info") if isinstance(feature.content, dict) else None
    return isinstance(known, dict) and bool(known.get("is_depth_map") or known.get("video.is_depth_map"))


def _cameras(folder: Path, info: Record, version: str, kinds: Mapping[str, str]) -> list[Camera]:
    """Return every camera, sorted by name."""
    cameras: list[Camera] = []
    videos: _Videos | None = None
    for name in sorted(kinds):
        if kinds[name] == "image":
            cameras.append(lambda row, name=name: row.image(name))
        elif kinds[name] == "video":
            videos = videos or _Videos(folder, info, version)
            cameras.append(lambda row, name=name, videos=videos: videos.frame(row, name))
    if not cameras:
        raise DataError(f"{info.where}: no feature of dtype 'image' or 'video', so there is nothing to prune")
    return cameras


class _Videos:
    """The videos of a data set, and when an episode begins in them."""

    def __init__(self, folder: Path, info: Record, version: str) -> None:
        self.folder, self.info, self.template = folder, info, info.text("video_path")
        self.rate = info.number("fps")
        if self.rate <= 0:
            raise DataError(f"{info.where}, 'fps': {self.rate:g} frames per second; correct the file")
        self.episodes = _episodes(folder) if version == "v3.0" else None
        self.found: dict[tuple[int, str], tuple[Path, float]] = {}

    def frame(self, row: Record, camera: str) -> VideoFrame:
        episode = row.integer("episode_index")
        if (episode, camera) not in self.found:
            self.found[episode, camera] = self.find(row, episode, camera)
        path, begin = self.found[episode, camera]
        return VideoFrame(path, begin + row.integer("frame_index") / self.rate, 1 / self.rate)

    def find(self, row: Record, episode: int, camera: str) -> tuple[Path, float]:
        """Return the file that an episode is in, and when it begins there, in seconds."""
        if self.episodes is None:
            named, begin = {"episode_chunk": episode // self.info.integer("chunks_size")}, 0.0
        else:
            if episode not in self.episodes:
                raise DataError(f"{row.where}: episode {episode} is not in meta/episodes")
            record = self.episodes[episode]
            named = {key: record.integer(f"videos/{camera}/{key}") for key in ("chunk_index", "file_index")}
            begin = record.number(f"videos/{camera}/from_timestamp")
        try:
            path = self.template.format(video_key=camera, episode_index=episode, **named)
        except (LookupError, ValueError, AttributeError) as error:
            raise DataError(f"{self.info.where}, 'video_path': {self.template!r} names no file ({error!r})") from error
        return row.find_video(self.folder, path), begin


def _episodes(folder: Path) -> dict[int, Record]:
    files = sorted(folder.glob("meta/episodes/*/*.parquet"))
    return {record.integer("episode_index"): record for file in files for record in table_records(file)}


def _tasks(path: Path) -> dict[int, str]:
    if path.suffix == ".jsonl":
        return {record.integer("task_index"): record.text("task") for record in line_records(path)}
    return {record.integer("task_index"): record.text(*TASK_COLUMNS) for record in table_records(path)}


def _of_row(row: Record, cameras: Sequence[Camera], tasks: Mapping[int, str], has_state: bool) -> Observation:
    number = row.integer("task_index")
    if number not in tasks:
        raise DataError(f"{row.where}: task_index {number} is not among the tasks in meta")
    state = numbers(row[STATE], f"{row.where}, {STATE!r}") if has_state else None
    images = tuple(camera(row) for camera in cameras)
    return Observation(row.where, images, state, tasks[number], row.integer("episode_index"))
