"""The figure on position IDs and grounding: it shows the data of the run, and everything it draws is visible."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from demos.test_demos import load
from helpers.files.evals import sample_image, saved
from helpers.files.rows import row
from helpers.files.search import write_scenes
from helpers.tiny import tiny_llava
from PIL import Image

from tokenprune.evals.dev.figures import gap as gap_figure
from tokenprune.evals.dev.figures.gap import Scene
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage import results_io
from tokenprune.evals.storage.answers import Answer, AnswerKey, KeptTokens, SetupKey
from tokenprune.evals.tasks.refcoco import RefCocoQuestion
from tokenprune.tokens import Layout

RATIOS = (0.5, 0.25)
BOX = (30.0, 10.0, 45.0, 30.0)
RIGHT, WRONG = "50 25 74 74", "00 00 20 20"


def sample(folder: Path, name: str = "a") -> RefCocoQuestion:
    sample_image((60, 40)).save(folder / f"{name}.png")
    return RefCocoQuestion(
        task="rec",
        id=name,
        images=(folder / f"{name}.png",),
        text="Where is the box?",
        expression="the box",
        box=BOX,
        size=(60, 40),
        style=STYLES["bundled"],
    )


def answer(name: str, ratio: float, ids: str, text: str, score: float | None, strategy: str = "Grid") -> Answer:
    n_kept = round(36 * ratio)
    kept = KeptTokens.of(range(n_kept), Layout.raster((1, 6, 6)))
    return Answer("rec", name, "", strategy, ids, ratio, text, score, 36, n_kept, float(n_kept), kept=(kept,))


def unpruned(name: str, score: float | None) -> Answer:
    return replace(answer(name, 1.0, "original", RIGHT, score, UNPRUNED), kept=())


def by_asked(answers: list[Answer]) -> dict[AnswerKey, Answer]:
    return {one.answer_key: one for one in answers}


ROWS = [
    row(UNPRUNED, "original", 1.0, {"val": [1.0, 1.0, 1.0, 0.0]}),
    row("Grid", "original", 0.25, {"val": [1.0, 0.0, 0.0, 0.0]}),
    row("Grid", "original", 0.5, {"val": [1.0, 1.0, 0.0, 0.0]}),
    row("Grid", "compact", 0.25, {"val": [0.0, 0.0, 0.0, 0.0]}),
    row("Grid", "compact", 0.5, {"val": [0.0, 0.0, 0.0, 1.0]}),
]


def test_curves_are_the_rows() -> None:
    found = gap_figure.curves(ROWS)
    assert [(p.kept, p.accuracy) for p in found["original"]] == [(100, 75), (50, 50), (25, 25)]
    assert [(p.kept, p.accuracy) for p in found["compact"]] == [(100, 75), (50, 25), (25, 0)]
    low, high = ROWS[2].interval
    assert (found["original"][1].low, found["original"][1].high) == (100 * low, 100 * high)
    assert low < 0.5 < high


def test_the_scene_is_the_first_that_is_answered_right(tmp_path: Path) -> None:
    samples = [sample(tmp_path, name) for name in ("never asked", "wrong", "right", "right too")]
    scores = {"wrong": 0.0, "right": 1.0, "right too": 1.0}
    asked = by_asked([unpruned(name, score) for name, score in scores.items()])
    assert Scene.first_correct(samples, asked).question.id == "right"
    asked = by_asked([unpruned(name, None) for name in scores])
    assert Scene.first_correct(samples, asked).question.id == "wrong"


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path / "scenes")
    model = saved(tiny_llava(), tmp_path / "model")
    output = tmp_path / "new" / "gap.png"
    options = ["--model", model, "--data", str(tmp_path / "scenes"), "--strategy", "grid", "--limit", "3"]
    options += ["--keep-ratio", "0.5", "0.25", "--output", str(output)]
    load("grounding_gap").main(options)
    rows = results_io.read([output.with_suffix(".jsonl")])
    pruned = [("Grid", ids, ratio) for ratio in RATIOS for ids in ("original", "compact")]
    assert [row.key for row in rows] == [SetupKey(UNPRUNED, "original", 1.0), *(SetupKey(*key) for key in pruned)]
    assert {row.n for row in rows} == {3}
    drawn = np.asarray(Image.open(output).convert("RGB"))
    assert min(drawn.shape[:2]) > 700
    assert all(half.std() > 20 for half in np.array_split(drawn, 2, axis=1))
    capsys.readouterr()
    load("grounding_gap").main(options)
    assert "15/15 0:00:00" in capsys.readouterr().out  # nothing is asked again
