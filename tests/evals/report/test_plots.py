"""Plots, cards and documents."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import command
from helpers.files.evals import saved, tiny_processor, write_refcoco, write_vqav2
from helpers.files.rows import row
from helpers.files.tasks import VIDEO_SETS
from helpers.tiny import SIDE, tiny_llava
from matplotlib.collections import LineCollection
from PIL import Image

from tokenprune.adapters.layouts.newlines import rows_with_delimiters, rows_with_newlines
from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.report import markers, palette, plot
from tokenprune.evals.report import page as pages
from tokenprune.evals.report.regressions import AskedQuestion, Regression, questions_of
from tokenprune.evals.report.report import report
from tokenprune.evals.report.table import Table
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.storage.answers import Answer, KeptTokens
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.results_io import to_line
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks import TASKS
from tokenprune.tokens import Layout

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


# What the cards of lost questions show for videos, cropped images, and rasters with newline tokens.


def answer(strategy: str, score: float) -> Answer:
    return Answer("mvbench", "1", "", strategy, "original", 0.25, "", score)


def test_parts_of_a_video_are_told_apart(tmp_path: Path) -> None:
    """Two questions may be about different parts of one file."""
    VIDEO_SETS["mvbench", "published"](tmp_path)
    with allowing(frames=2):
        (whole, *_) = (one for one in TASKS["mvbench"].load(tmp_path) if one.category == "moving_count")
    images: dict[pages.Shown, pages.EmbeddedImage] = {}
    parts = [replace(whole, start=start, end=start + 0.5) for start in (0.0, 1.5)]
    lost = Regression(answer("unpruned", 1.0), answer("Grid", 0.0))
    cards = [pages._card(lost, AskedQuestion(one), images) for one in parts]
    urls = [[panel.image.url for panel in card.panels if panel.image is not None] for card in cards]
    assert [len(own) for own in urls] == [2, 2]
    assert not set(urls[0]) & set(urls[1])


@pytest.mark.parametrize(("n_frames", "n_steps", "shown"), [(9, 5, "02468"), (8, 4, "0246"), (3, 3, "012")])
def test_the_first_of_merged_frames_is_shown(n_frames: int, n_steps: int, shown: str) -> None:
    """Qwen-VL merges them two by two, and the last of nine with itself."""
    images = [pages.EmbeddedImage(str(number), "data:", 60, 40, 1.0) for number in range(n_frames)]
    layout = Layout(((n_steps, 2, 2),))
    panels = pages._frames(images, [KeptTokens.of(range(n_steps), layout)], (0.0, 0.0, 60.0, 40.0))
    assert "".join(panel.image.name for panel in panels if panel.image is not None) == shown


@pytest.mark.parametrize(("grids", "drawn"), [([(1, 2, 2)], True), ([(1, 2, 2), (1, 1, 2)], False)])
def test_what_was_dropped_of_frames_that_the_model_took_as_images(
    grids: list[tuple[int, int, int]], drawn: bool
) -> None:
    """Each has its own report. It is drawn in the part of the frame that the model saw, if frames are not tiled."""
    images = [pages.EmbeddedImage(str(number), "data:", 60, 40, 1.0) for number in range(3)]
    kept = [KeptTokens.of([number], Layout(tuple(grids))) for number in range(3)]
    panels = pages._frames(images, kept, (10.0, 0.0, 50.0, 40.0))
    first = ["M30.0 0.0h20.0v20.0h-20.0zM10.0 20.0h40.0v20.0h-40.0z"]
    assert [panel.dropped for panel in panels][:1] == (first if drawn else [""])
    assert len({panel.dropped for panel in panels}) == (3 if drawn else 1)


def test_dropped_cells_are_drawn_where_the_model_saw_them_whatever_is_asked(tmp_path: Path) -> None:
    """The processor crops the middle of an image of 60 x 40, for questions with and without a box."""
    model = saved(tiny_llava(), tmp_path / "model")
    tiny_processor(do_center_crop=True, size={"shortest_edge": SIDE}).save_pretrained(tmp_path / "model")
    write_refcoco(tmp_path / "set")
    write_vqav2(tmp_path / "set", 1)
    drawn = []
    for task in ("rec", "vqa"):
        run = RunFolder(tmp_path / task)
        only = {"strategies": ["grid"], "keep_ratios": [0.25], "position_ids": ["original"], "baselines": ["unpruned"]}
        evaluate(model, output=run.path, data=tmp_path / "set", tasks=[task], **only)  # pyright: ignore[reportArgumentType]
        answers = list(run.answers().values())
        pruned = next(one for one in answers if one.keep_ratio < 1)
        unpruned = next(one for one in answers if one.id == pruned.id and one.keep_ratio == 1)
        regression = Regression(unpruned, pruned, str(run.path))
        (asked,) = questions_of(run, [regression]).values()
        drawn += [panel.dropped for panel in pages._card(regression, asked, {}).panels]
    assert len(drawn) == 2
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith("M10.0 0.0h40.0v")


def test_an_image_that_has_become_unreadable_is_named_in_its_place(tmp_path: Path) -> None:
    write_vqav2(tmp_path, 1)
    (question,) = TASKS["vqa"].load(tmp_path)
    (path,) = (tmp_path / "images").iterdir()
    path.write_bytes(b"no image")
    card = pages._card(Regression(answer("unpruned", 1.0), answer("Grid", 0.0)), AskedQuestion(question), {})
    assert (card.question, card.panels) == (question.text, [])
    assert card.note.startswith(f"not shown: {path}: not an image")


@pytest.mark.parametrize("columns", [3, 2])
def test_a_canvas_without_newline_tokens_is_drawn_whole(columns: int) -> None:
    """As in Molmo 2, even if it is as large as the overview."""
    layout = Layout(((1, 2, 2), (1, 2, columns)))
    kept = KeptTokens.of(range(4, layout.n_visual - 1), layout)
    image = pages.EmbeddedImage("image-0", "data:", 60, 40, 1.0)
    overview, canvas = pages._panels(image, kept, (0.0, 0.0, 60.0, 40.0))
    width = 60 / columns
    assert (overview.name, overview.dropped) == ("overview", "M0.0 0.0h60.0v20.0h-60.0zM0.0 20.0h60.0v20.0h-60.0z")
    assert (canvas.name, canvas.dropped) == ("canvas", f"M{60 - width:.1f} 20.0h{width:.1f}v20.0h-{width:.1f}z")


def test_newline_tokens_of_an_image_and_of_frames_are_not_drawn() -> None:
    """HunyuanOCR has one after each row and one at each end; LLaVA-NeXT-Video has one after each row of every frame."""
    rows = Layout.raster((1, 2, 3))
    for layout, grid in ((rows_with_delimiters(rows), (1, 2, 3)), (rows_with_newlines(rows, 4), (4, 2, 3))):
        first = int((~layout.newline_mask()).nonzero()[0])
        (dropped,) = KeptTokens.of([first], layout).dropped()
        assert dropped.shape == grid
        assert dropped.flatten().tolist() == [False, *[True] * (dropped.size - 1)]


# Markdown tables, and the documents that they are inserted into.


def test_what_a_user_names_stays_in_its_cell() -> None:
    table = str(Table(["split", "n"], [["left|right", "1"], ["two\nlines", "2"]]))
    assert table.splitlines()[2:] == [r"| left\|right | 1 |", "| two lines | 2 |"]


def test_a_document_is_whole_or_as_it_was(tmp_path: Path) -> None:
    """It has either the new tables or, if the disk is full, its old content. A symbolic link stays one."""
    rows = [row("unpruned", "original", 1.0, {"": [1.0, 0.0]}), row("Random", "original", 0.25, {"": [0.0, 0.0]})]
    path, page, link = (tmp_path / name for name in ("rows.jsonl", "page.md", "link.md"))
    path.write_text("".join(f"{to_line(one)}\n" for one in rows))
    page.write_text(before := "".join(markers.marks("report")))
    link.symlink_to(page)
    (tmp_path / "page.md.unfinished").symlink_to("/dev/full")
    assert "page.md: cannot be written" in command("report", path, "--into", link)
    assert page.read_text() == before
    (tmp_path / "page.md.unfinished").unlink()
    assert command("report", path, "--into", link) == 0
    assert report(rows, further=False) in page.read_text()
    assert link.is_symlink()
