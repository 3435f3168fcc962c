"""The rule that chooses the example of the README's first image."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.files.evals import write_refcoco
from helpers.files.rows import row

from tokenprune.evals.dev.figures import typical
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.run.setups import make_setups
from tokenprune.evals.storage.results import TaskResult

#: By split, as answers are stored; in the set, splits alternate.
IDS = {"val": "ace", "test": "bdf"}


def result(name: str, keep_ratio: float, right: str) -> TaskResult:
    return row(name, "original", keep_ratio, {split: [float(id in right) for id in ids] for split, ids in IDS.items()})


def test_the_first_question_with_the_usual_outcome_of_every_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grid is right on four of the five questions that the unpruned model answers right, and Random on two."""
    stored = [result("unpruned", 1.0, "bcdef"), result("Grid", 0.25, "acdef"), result("Random", 0.25, "ace")]
    write_refcoco(tmp_path)
    one, *_ = load_questions(tmp_path, ["rec"])
    asked = [replace(one, id=id, split="val" if id in "ace" else "test") for id in "abcdef"]
    monkeypatch.setattr(typical, "measured", lambda part: SimpleNamespace(rows=stored))
    monkeypatch.setattr(typical, "load_questions", lambda folder, tasks: asked)
    monkeypatch.setattr(typical, "SETTINGS", tmp_path / "none")
    assert asked[typical.typical(make_setups(["grid", "random"], [0.25], ["original"], baselines=[]))].id == "d"
