"""The questions to tune on: two halves that share no image, and their kinds."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.files.search import scenes
from helpers.files.sets import png, write_lines, write_parquet
from helpers.files.tasks import SETS

from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import number_images
from tokenprune.evals.tune.page import kinds
from tokenprune.evals.tune.questions import CHUNK, halves


def test_halves_share_no_image_and_hold_every_question(tmp_path: Path) -> None:
    questions = list(scenes(tmp_path, 50))
    first, second = halves(questions, seed=0)
    assert sorted(one.id for half in (first, second) for one in half.questions) == sorted(one.id for one in questions)
    images = [{one.images for one in half.questions} for half in (first, second)]
    assert not images[0] & images[1]
    assert abs(len(images[0]) - len(images[1])) <= 1
    assert halves(questions, 0) == (first, second) != halves(questions, 1)
    assert [len(first.first(n).questions) for n in (1, CHUNK, CHUNK + 1, 999)] == [CHUNK, CHUNK, 25, 25]


@pytest.mark.parametrize("form", ["table", "files"])
def test_copies_of_an_image_are_in_one_half(tmp_path: Path, form: str) -> None:
    """A table has a copy of the image in each row, and a script may write one per question."""
    images = [png() + bytes(n // 2) for n in range(40)]
    rows = [{"question": f"{n}?", "answer": "a", "image": f"{n}.png"} for n in range(40)]
    if form == "table":
        embedded = [row | {"image": {"bytes": one, "path": None}} for row, one in zip(rows, images, strict=True)]
        write_parquet(tmp_path / "questions.parquet", embedded)
    else:
        for number, one in enumerate(images):
            (tmp_path / f"{number}.png").write_bytes(one)
        write_lines(tmp_path / "questions.jsonl", rows)
    first, second = halves(TASKS["own"].load(tmp_path), seed=0)
    contents = [{one.images[0].read_bytes() for one in half.questions} for half in (first, second)]
    assert not contents[0] & contents[1]
    assert [len(half.questions) for half in (first, second)] == [20, 20]


def test_images_that_a_question_joins_are_in_one_half(tmp_path: Path) -> None:
    """Each question is about two images, and shares the second with the next question; every fifth starts a new
    chain."""
    questions = list(scenes(tmp_path, 100))
    images = [one.images[0] for one in questions]
    joined = [
        replace(one, images=(images[n],) if n % 5 == 4 else (images[n], images[n + 1]))
        for n, one in enumerate(questions)
    ]
    assert number_images(joined) == [n // 5 for n in range(100)]
    assert number_images([replace(one, images=()) for one in questions]) == list(range(100))
    first, second = halves(joined, seed=0)
    shown = [{image for one in half.questions for image in one.images} for half in (first, second)]
    assert not shown[0] & shown[1]
    assert [len(half.questions) for half in (first, second)] == [50, 50]


def test_every_beginning_is_a_fair_sample_of_the_tasks(tmp_path: Path) -> None:
    SETS["own", "published"](tmp_path / "own")
    other = TASKS["own"].load(tmp_path / "own")[0]
    boxes = list(scenes(tmp_path, 64))
    texts = [replace(other, id=f"own-{n}", images=boxes[n].images) for n in range(64)]
    half = halves([*boxes, *texts], 0)[0]
    tasks = [chunk[0].task for chunk in half.chunks]
    assert tasks[:2] in (["rec", "own"], ["own", "rec"])
    assert tasks[2:4] in (["rec", "own"], ["own", "rec"])


def test_rare_kinds_are_put_together(tmp_path: Path) -> None:
    SETS["own", "published"](tmp_path)
    first, second = TASKS["own"].load(tmp_path)
    assert kinds([first] * 20 + [second]) == ["own: names"] * 20 + ["own: other"]
