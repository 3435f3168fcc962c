"""What the cards of lost questions show for videos, cropped images, and rasters with newline tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.files.evals import saved, tiny_processor, write_refcoco, write_vqav2
from helpers.files.video_sets import mvbench
from helpers.tiny import SIDE, tiny_llava

from tokenprune.adapters.layouts.newlines import rows_with_delimiters, rows_with_newlines
from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.report import page as pages
from tokenprune.evals.report.regressions import AskedQuestion, Regression, questions_of
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.storage.answers import Answer, KeptTokens
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks import TASKS
from tokenprune.tokens import Layout


def answer(strategy: str, score: float) -> Answer:
    return Answer("mvbench", "1", "", strategy, "original", 0.25, "", score)


def test_parts_of_a_video_are_told_apart(tmp_path: Path) -> None:
    """Two questions may be about different parts of one file."""
    mvbench(tmp_path)
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


def test_an_image_of_one_visual_token_is_drawn_alone() -> None:
    image = pages.EmbeddedImage("image-0", "data:", 28, 28, 1.0)
    (panel,) = pages._panels(image, KeptTokens.of([0], Layout(((1, 1, 1),))), (0.0, 0.0, 28.0, 28.0))
    assert (panel.image, panel.dropped) == (image, "")


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
