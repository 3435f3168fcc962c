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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from tokenprune.evals.dev.figures import gap as gap_figure
from tokenprune.evals.dev.figures.gap import Scene
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage import results_io
from tokenprune.evals.storage.answers import Answer, AnswerKey, KeptTokens, SetupKey
from tokenprune.evals.tasks.refcoco import RefCocoQuestion
from tokenprune.tokens import Layout

ROOT = Path(__file__).parents[2]
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


def scene(folder: Path, compact: str = WRONG) -> Scene:
    texts = {"original": RIGHT, "compact": compact}
    answers = [answer("a", ratio, ids, text, 1.0) for ratio in RATIOS for ids, text in texts.items()]
    return Scene.first_correct([sample(folder)], by_asked([unpruned("a", 1.0), *answers]))


def axes_of(figure: Figure) -> tuple[list[Axes], Axes]:
    """Return the panels of the scene, and the curves."""
    left, right = figure.subfigs
    return left.axes, right.axes[0]


def pixels_of(figure: Figure, axes: Axes) -> np.ndarray:
    """Return what is drawn within the axes."""
    canvas = figure.canvas
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)  # pyright: ignore[reportAttributeAccessIssue]
    box, height = axes.get_window_extent(), drawn.shape[0]
    return drawn[height - int(box.y1) : height - int(box.y0), int(box.x0) : int(box.x1)]


def has_color(pixels: np.ndarray, name: str) -> bool:
    color = gap_figure.STYLES[name][0]
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((abs(pixels - wanted) < 12).all(-1).sum()) > 40


def test_curves_are_the_rows() -> None:
    found = gap_figure.curves(ROWS)
    assert [(p.kept, p.accuracy) for p in found["original"]] == [(100, 75), (50, 50), (25, 25)]
    assert [(p.kept, p.accuracy) for p in found["compact"]] == [(100, 75), (50, 25), (25, 0)]
    low, high = ROWS[2].interval
    assert (found["original"][1].low, found["original"][1].high) == (100 * low, 100 * high)
    assert low < 0.5 < high


def test_what_is_drawn_are_the_curves(tmp_path: Path) -> None:
    _, axes = axes_of(gap_figure.figure(ROWS, scene(tmp_path)))
    lines = {line.get_label(): line for line in axes.lines}
    for ids, points in gap_figure.curves(ROWS).items():
        assert list(np.asarray(lines[ids].get_xdata())) == [p.kept for p in points]
        assert list(np.asarray(lines[ids].get_ydata())) == [p.accuracy for p in points]
    assert len(axes.collections) == 2  # a band for each kind
    assert "4 questions" in axes.get_title()


def test_the_scene_shows_each_box(tmp_path: Path) -> None:
    figure = gap_figure.figure(ROWS, scene(tmp_path))
    panels, _ = axes_of(figure)
    half, quarter, *unused = panels
    assert not any(axes.has_data() for axes in unused)
    assert "50 %: 18 of 36" in half.get_title()
    assert "original 0.94, compact 0.00" in half.get_title()
    pixels = [pixels_of(figure, axes) for axes in (half, quarter)]
    for drawn in pixels:
        assert min(drawn.shape[:2]) > 80
        assert has_color(drawn, "original")
        assert has_color(drawn, "compact")
    assert pixels[1].mean() < pixels[0].mean()  # a larger part is dark


def test_no_box_is_said_and_not_drawn(tmp_path: Path) -> None:
    figure = gap_figure.figure(ROWS, scene(tmp_path, compact="nowhere"))
    (first, *_), _ = axes_of(figure)
    assert "compact no box" in first.get_title()
    assert not has_color(pixels_of(figure, first), "compact")
    assert has_color(pixels_of(figure, first), "original")


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
