"""The bundled clips: their command reproduces them, and their questions are right."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tokenprune.evals.dev.clips import FPS, FREE, N_FRAMES, SIDE, free_piece, make, scenes
from tokenprune.evals.models.bundled import CLIPS
from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.reading.videos import read_clip
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.video import VideoAnswer

pytest.importorskip("av")


def test_the_command_makes_them_again(tmp_path: Path) -> None:
    make(tmp_path, 4, 0)
    for name in ("val_q.json", "val_a.json"):
        again = json.loads((tmp_path / name).read_text())
        assert again == json.loads((CLIPS / name).read_text())[: len(again)]
    for number in range(4):
        name = f"videos/clip_{number:03}.mp4"
        made, bundled = (read_clip(folder / name, N_FRAMES) for folder in (tmp_path, CLIPS))
        for one, other in zip(made.frames, bundled.frames, strict=True):
            assert np.abs(np.asarray(one, int) - np.asarray(other, int)).mean() < 3


def test_questions() -> None:
    with allowing(frames=4):
        questions = TASKS["videoqa"].load(CLIPS)
    assert len(questions) == 420
    assert Counter(question.category for question in questions) == {"yes or no": 350, "object": 70}
    answers = Counter(question.answers[0] for question in questions if isinstance(question, VideoAnswer))
    assert (answers["yes"], answers["no"]) == (210, 140)


def test_what_appears_is_in_one_of_four_frames() -> None:
    """The moving object is always in the other half."""
    for number in (1, 3, 5):
        frames = [np.asarray(frame, int) for frame in read_clip(CLIPS / f"videos/clip_{number:03}.mp4", 4).frames]
        changed = [
            [np.abs(one[rows] - other[rows]).mean() for one in frames for other in frames]
            for rows in (slice(0, SIDE // 2), slice(SIDE // 2, SIDE))
        ]
        still = min(changed, key=np.median)  # the half in which nothing moves
        assert sum(difference > 3 for difference in still) in (6, 0)  # one frame differs from three, counted twice
    clip = read_clip(CLIPS / "videos/clip_001.mp4", N_FRAMES)
    assert clip.duration == N_FRAMES / FPS


def test_a_free_piece_has_no_object() -> None:
    found = scenes()
    pieces = {file: free_piece(things) for file, things in found.items()}
    square = next((pieces[file], things) for file, things in found.items() if pieces[file] is not None and things)
    left, top, right, bottom = square[0] or (0, 0, 0, 0)
    assert right - left == bottom - top > FREE
    for thing in square[1]:
        assert thing.box[2] <= left or thing.box[0] >= right or thing.box[3] <= top or thing.box[1] >= bottom
