"""The questions to tune on: a user's own file, and two halves that share no image."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.files.evals import sample_image
from helpers.files.search import scenes

from tokenprune import DataError
from tokenprune.evals.models.prompt_styles import LLAVA
from tokenprune.evals.tune.own import load
from tokenprune.evals.tune.page import kinds
from tokenprune.evals.tune.questions import CHUNK, halves, image_numbers


def write(folder: Path, *lines: Any) -> Path:
    sample_image().save(folder / "1.png")
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "questions.jsonl").write_text(text)
    return folder


def test_halves_share_no_image_and_hold_every_question(tmp_path: Path) -> None:
    questions = list(scenes(tmp_path, 50))
    first, second = halves(questions, seed=0)
    assert sorted(one.id for half in (first, second) for one in half.questions) == sorted(one.id for one in questions)
    images = [{one.images for one in half.questions} for half in (first, second)]
    assert not images[0] & images[1]
    assert abs(len(images[0]) - len(images[1])) <= 1
    assert halves(questions, 0) == (first, second) != halves(questions, 1)
    assert [len(first.first(n).questions) for n in (1, CHUNK, CHUNK + 1, 999)] == [CHUNK, CHUNK, 25, 25]


def test_every_beginning_is_a_fair_sample_of_the_tasks(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    line = {"image": "1.png", "question": "What?", "answer": "this"}
    other = load(write(tmp_path / "own", line), split=None, style=LLAVA, labels=True)[0]
    boxes = list(scenes(tmp_path, 64))
    texts = [replace(other, id=f"own-{n}", images=boxes[n].images) for n in range(64)]
    half = halves([*boxes, *texts], 0)[0]
    tasks = [chunk[0].task for chunk in half.chunks]
    assert tasks[:2] in (["rec", "own"], ["own", "rec"])
    assert tasks[2:4] in (["rec", "own"], ["own", "rec"])


def test_own_questions(tmp_path: Path) -> None:
    lines = [
        {"image": "1.png", "question": "What is it?", "answer": "a box", "kind": "naming"},
        "",
        {"image": ["1.png", "1.png"], "question": "Same?", "answer": ["yes", "Yes."]},
    ]
    first, second = load(write(tmp_path, *lines), split=None, style=LLAVA, labels=True)
    assert (first.id, first.category, len(second.images)) == ("own-1", "naming", 2)
    assert first.text == LLAVA.short_answer("What is it?")
    assert (first.score("A box."), first.score("a cup"), second.score("yes")) == (1.0, 0.0, 1.0)
    assert len(image_numbers([first, second])) == 2
    assert kinds([first] * 20 + [second]) == ["own: naming"] * 20 + ["own: other"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"image": "1.png", "question": "What?"}, "line 1: no answer. Add one, or write --no-labels"),
        ({"image": "2.png", "question": "What?", "answer": "x"}, r"line 1: .*2\.png"),
        ({"image": "1.png", "answer": "x"}, "line 1: no 'question'; it has 'image', 'answer'"),
        ({"image": 7, "question": "What?", "answer": "x"}, "line 1, 'image': expected a text or a list of texts"),
        ({"image": "1.png", "question": "What?", "answers": "x"}, "line 1: unknown key 'answers'; known are image"),
        ({"image": "1.png", "question": "What?", "answer": "\ud800"}, "line 1, 'answer': half a character"),
        ({"image": "1.png", "question": "What?", "answer": ["x", 7]}, "line 1, 'answer': expected text, found int 7"),
        ("{", "line 1, column 2: broken JSON"),
        ("", "no questions; write lines"),
    ],
)
def test_what_is_wrong_with_a_line(line: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path, line), split=None, style=LLAVA, labels=True)


def test_answers_may_be_missing_without_labels(tmp_path: Path) -> None:
    (question,) = load(write(tmp_path, {"image": "1.png", "question": "?"}), split=None, style=LLAVA, labels=False)
    assert question.images[0].name == "1.png"
