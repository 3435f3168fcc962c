"""The bundled clips: their command reproduces them, and their questions are right."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tokenprune.evals.dev.clips import N_FRAMES, make
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
