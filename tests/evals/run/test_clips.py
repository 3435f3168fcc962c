"""Runs on questions about videos, with models that take videos and one that gets the frames as images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.files.evals import saved, write_vqav2
from helpers.files.tasks import VIDEO_SETS
from helpers.models.video_models import saved_qwen
from helpers.tiny import tiny_llava
from rich.console import Console

from tokenprune import SettingError
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.run_folder import RunFolder

QUIET = Console(quiet=True)


def run(folder: Path, model: str, **settings: Any) -> list[TaskResult]:
    if "data" not in settings and not (folder / "set").exists():
        VIDEO_SETS["activitynetqa", "published"](folder / "set")
    given: dict[str, Any] = {"strategies": ["evs", "fopru"], "keep_ratios": [0.5], "baselines": ["unpruned"]}
    given |= {"output": folder / "run", "data": folder / "set", "tasks": ["activitynetqa"], "frames": 4}
    return evaluate(model, **{**given, "position_ids": ["original"], "console": QUIET, **settings})


@pytest.mark.parametrize(("name", "n_visual"), [("llava", 4 * 36), ("qwen", 2 * 48)])
def test_a_run_prunes_videos(tmp_path: Path, name: str, n_visual: int) -> None:
    model = saved(tiny_llava(), tmp_path / "model") if name == "llava" else saved_qwen(tmp_path / "model")
    results = run(tmp_path, model)
    assert [result.strategy for result in results] == ["unpruned", "EVS", "FoPru"]
    answers = RunFolder(tmp_path / "run").answers().values()
    assert len(answers) == 3 * 2
    for answer in answers:
        assert answer.error is None
        assert answer.n_visual == n_visual
        assert answer.n_kept == (n_visual if answer.strategy == "unpruned" else n_visual // 2)
    again = run(tmp_path, model)  # no question is asked twice
    assert [result.metrics for result in again] == [result.metrics for result in results]


def test_videos_are_pruned_alike_whatever_else_is_asked(tmp_path: Path) -> None:
    """For example a task about images, which a run may add later."""
    model = saved(tiny_llava(), tmp_path / "model")
    VIDEO_SETS["activitynetqa", "published"](tmp_path / "sets" / "activitynetqa")
    write_vqav2(tmp_path / "sets" / "vqa", 2)
    found = []
    for name, tasks in (("alone", ["activitynetqa"]), ("both", ["activitynetqa", "vqa"])):
        run(tmp_path, model, output=tmp_path / name, data=tmp_path / "sets", strategies=["fopru"], tasks=tasks)
        answers = RunFolder(tmp_path / name).answers().values()
        found.append([replace(one, seconds=0.0) for one in answers if one.task == "activitynetqa"])
    assert found[0] == found[1]


def test_every_frame_is_downsampled(tmp_path: Path) -> None:
    """Four frames of 6 x 6 visual tokens become 4 x 4 each; the unpruned model's tokens are counted in all four."""
    model = saved(tiny_llava(), tmp_path / "model")
    (shrunk,) = (one for one in run(tmp_path, model, baselines=["downsample"]) if one.strategy == "downsample")
    assert (shrunk.n_visual, shrunk.n_kept) == (4 * 36, 4 * 16)


def test_another_number_of_frames_is_another_run(tmp_path: Path) -> None:
    model = saved(tiny_llava(), tmp_path / "model")
    run(tmp_path, model)
    with pytest.raises(SettingError, match=r"another run|differ"):
        run(tmp_path, model, frames=2)


def test_engines_are_asked_about_images_only(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="is about a video, but engines get questions about images only"):
        run(tmp_path, saved(tiny_llava(), tmp_path / "model"), engine="http://localhost:1")
