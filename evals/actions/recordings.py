"""Read recorded observations: a folder with observations.jsonl, or a LeRobot data set."""

from pathlib import Path

from tokenprune.errors import DataError
from tokenprune.evals.actions.lerobot import INFO, lerobot_observations
from tokenprune.evals.actions.observation import Observation, numbers
from tokenprune.evals.reading.records import Record, line_records

#: One observation a line: {"images": ["front.jpg", ...], "state": [...], "task": "..."}.
FILE = "observations.jsonl"


def load_observations(folder: Path) -> list[Observation]:
    """Return all observations of a folder. DataError, naming file and place, for anything wrong in it."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of observations")
    if (folder / FILE).is_file():
        observations = [_of_line(folder, number, record) for number, record in enumerate(line_records(folder / FILE))]
    elif (folder / INFO).is_file():
        observations = lerobot_observations(folder)
    else:
        raise DataError(
            f'{folder}: no observations; needs {FILE}, with lines like {{"images": ["front.jpg"], "state": [0.1], '
            f'"task": "pick up the cup"}}, or a LeRobot data set with {INFO}'
        )
    if not observations:
        raise DataError(f"{folder}: holds no observations; record some, or name another folder")
    first = observations[0]
    for seen in observations:
        if len(seen.images) != len(first.images):
            raise DataError(
                f"{seen.where}: {len(seen.images)} images, but {first.where} has {len(first.images)}; give the "
                f"policy the same cameras each time"
            )
        if (seen.state is None) != (first.state is None) or len(seen.state or ()) != len(first.state or ()):
            raise DataError(
                f"{seen.where}: a state of {len(seen.state or ())} numbers, but {first.where} has "
                f"{len(first.state or ())}; give every observation the same state, or none"
            )
    return observations


def _of_line(folder: Path, number: int, record: Record) -> Observation:
    images = tuple(record.find_image(folder, name) for name in record.texts("images"))
    state = numbers(record["state"], f"{record.where}, 'state'") if record.has("state") else None
    episode = record.integer("episode") if record.has("episode") else number
    return Observation(record.where, images, state, record.text("task"), episode)
