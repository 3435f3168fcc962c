"""What the plot of the report shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.files.rows import row
from matplotlib.collections import LineCollection
from PIL import Image

from tokenprune import DataError
from tokenprune.evals.report import palette, plot
from tokenprune.evals.report.report import write
from tokenprune.evals.storage.results import TaskResult

RIGHT = [1.0] * 12


def two(**changes: object) -> list[TaskResult]:
    """The unpruned model and a strategy."""
    return [
        row("unpruned", "original", 1.0, {"": RIGHT}, **changes),
        row(r"FoPru $\a$", "original", 0.5, {"": RIGHT}, **changes),
    ]


def test_one_figure_and_one_legend_for_all_sets(tmp_path: Path) -> None:
    alone = row("unpruned", "original", 1.0, {"": RIGHT}, dataset="alone")
    rows = [*two(), *two(task="vqa"), *two(dataset=r"own $\a$"), alone]
    assert [path.name for path in plot.draw(rows, tmp_path)] == ["accuracy.png", "accuracy.svg"]
    figure = plot.figure([two(), two(task="vqa"), two(dataset=r"own $\a$")])
    titles = [axes.get_title() for axes in figure.axes if axes.axison]
    assert titles == ["REC on scenes (n = 12)", "VQA on scenes (n = 12)", r"REC on own $\a$ (n = 12)"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [r"FoPru $\a$", "unpruned"]
    assert not any(axes.get_legend() for axes in figure.axes)


def test_every_point_has_its_interval() -> None:
    """The unpruned model's too, in which case it is also a band."""
    rows = two()
    (axes,) = plot.figure([rows]).axes
    bars = [np.array(one.get_segments()) for one in axes.collections if isinstance(one, LineCollection)]
    assert {round(float(bar[0, 0, 1]), 6) for bar in bars} == {round(100 * rows[0].interval[0], 6)}
    assert len(bars) == 2
    (band,) = axes.patches
    assert band.get_window_extent().width > 0.99 * axes.get_window_extent().width


def test_nothing_to_compare(tmp_path: Path) -> None:
    unpruned, pruned = two()
    assert not plot.draw([unpruned, replace(pruned, scores={"": ["failed"] * 12})], tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_strategy_is_told_apart(tmp_path: Path) -> None:
    rows = [row("unpruned", "original", 1.0, {"": RIGHT})]
    for index in range(9):
        scores = {"": RIGHT[: 11 - index] + [0.0] * (index + 1)}
        rows += [row(f"S{index}", "original", ratio, scores) for ratio in (0.5, 0.25)]
    png, svg = plot.draw(rows, tmp_path)
    pixels = np.asarray(Image.open(png).convert("RGB")).astype(int)
    for color in palette.COLORS:
        assert color.lower() in svg.read_text()
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (abs(pixels - wanted) < 12).all(-1).sum() > 50
    styles = [plot._style(i, "original") for i in range(40)]
    assert len({(style["color"], style["marker"]) for style in styles}) == 40


@pytest.mark.parametrize("name", ["report.md", "accuracy.svg", "report.html"])
def test_a_full_disk_is_named_with_the_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(DataError, match=f"{name}: cannot be written: No space left on device"):
        write([], two(), tmp_path, baseline=None, n_losses=0)
