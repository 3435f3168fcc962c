"""Video tasks on tiny sets, in each form in which they are distributed: prompts, frames, scores and errors."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.files.tasks import VIDEO_SETS
from helpers.files.videos import levels

from tokenprune.errors import DataError
from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.video import VideoQuestion

forms = pytest.mark.parametrize(("name", "form"), VIDEO_SETS)


def loaded(folder: Path, name: str, form: str = "published") -> Sequence[Question]:
    VIDEO_SETS[name, form](folder)
    return TASKS[name].load(folder)


@forms
def test_tiny_sets_of_every_form_are_read(tmp_path: Path, name: str, form: str) -> None:
    with allowing(frames=3):
        questions = loaded(tmp_path, name, form)
    assert TASKS[name].is_in(tmp_path)
    assert len({question.id for question in questions}) == len(questions) > 0
    for question in questions:
        assert isinstance(question, VideoQuestion)
        assert question.task == name
        clip = question.open_clip()
        assert len(clip.frames) == len(question.open_images()) == 3
        assert question.score("") is None


@forms
def test_a_missing_video_is_named(tmp_path: Path, name: str, form: str) -> None:
    questions = loaded(tmp_path, name, form)
    video = next(image for question in questions for image in question.images if isinstance(image, Path))
    video.unlink()
    with pytest.raises(DataError, match=rf"(row \d+|\[\d+\]): missing video .*{video.stem}"):
        TASKS[name].load(tmp_path)


SCORES = {
    "videomme": [("B", 1), ("The best answer is: B. A dog.", 1), ("(C)", 0), ("the dog", None), ("A or B", 0)],
    "mvbench": [("B", 1), ("(B) A dog", 1), ("a dog", 1), ("A", 0), ("neither", None)],
    "mlvu": [("B", 1), ("(B) A dog", 1), ("A", 0), ("neither", None)],
    "longvideobench": [("B", 1), ("The best option is B", 1), ("E", 0), ("it", None)],
    "egoschema": [("B", 1), ("The answer is B", 1), ("E", 0), ("none of them", 0)],
    "activitynetqa": [("Dog.", 1), ("dogs", 0)],
}


@pytest.mark.parametrize("name", SCORES)
def test_messy_answers_are_read(tmp_path: Path, name: str) -> None:
    form = "published" if (name, "published") in VIDEO_SETS else "hub"
    question = loaded(tmp_path, name, form)[0]
    for answer, score in SCORES[name]:
        assert question.score(answer) == score, answer


def test_metrics_of_videomme(tmp_path: Path) -> None:
    questions = loaded(tmp_path, "videomme", "hub")
    metrics = TASKS["videomme"].metrics(list(zip(questions, ["B", "A"], strict=True)))
    assert {name: metric.value for name, metric in metrics.items()} == {
        "accuracy": 0.5,
        "short accuracy": 1,
        "long accuracy": 0,
    }


def test_metrics_of_mvbench(tmp_path: Path) -> None:
    questions = loaded(tmp_path, "mvbench")
    answers = ["B" if question.category == "moving_count" else "A" for question in questions]
    metrics = TASKS["mvbench"].metrics(list(zip(questions, answers, strict=True)))
    assert next(iter(metrics)) == TASKS["mvbench"].metric == "accuracy"
    assert metrics["mean of tasks"].value == metrics["accuracy"].value == pytest.approx(1 / 3)
    again = [(question, answer) for question, answer in zip(questions, answers, strict=True) if answer == "B"]
    metrics = TASKS["mvbench"].metrics([*zip(questions, answers, strict=True), *again, *again])
    assert (metrics["accuracy"].value, metrics["mean of tasks"].value) == (3 / 5, pytest.approx(1 / 3))
    assert metrics["moving count"].value == 1


def test_mvbench_shows_the_part_that_a_record_names(tmp_path: Path) -> None:
    with allowing(frames=2):
        questions = {question.category: question for question in loaded(tmp_path, "mvbench")}
    shown = {task: levels(question.open_images()) for task, question in questions.items()}
    assert shown["moving_count"] == [100, 240]  # the middles of both halves of two seconds
    assert shown["action_sequence"] == [180, 240]  # its second second
    assert shown["episodic_reasoning"] == [20, 180]  # the first second of a folder of three frames a second


def test_egoschema_leaves_out_what_has_no_public_answer(tmp_path: Path) -> None:
    assert [question.id for question in loaded(tmp_path, "egoschema")] == ["egoschema-0074f737", "egoschema-00aa7247"]


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("mvbench", "json/moving_count.json", [{"video": "v", "question": "q", "candidates": ["a"], "answer": "b"}],
         r"moving_count\.json\[0\]: answer 'b' is none of the candidates"),
        ("mvbench", "json/other.json", [], r"other\.json: not one of MVBench's tasks"),
        ("egoschema", "subset_answers.json", {"0074f737": 5}, r"questions\.json\[0\]: the answer is option 5 of 5"),
        ("egoschema", "subset_answers.json", 5, r"subset_answers\.json: expected an object, found int 5"),
        ("activitynetqa", "test_a.json", [], r"test_q\.json\[0\]: no answer to 'v_1QIUV7WYKXg_3' in test_a\.json"),
        ("activitynetqa", "test_a.json",
         [{"answer": "dog", "type": -1, "question_id": f"v_1QIUV7WYKXg_{n}"} for n in (3, 4)],
         r"test_q\.json\[0\]: type -1 is not one of 0 to 8"),
    ],
)  # fmt: skip
def test_broken_files(tmp_path: Path, name: str, file: str, content: object, message: str) -> None:
    VIDEO_SETS[name, "published"](tmp_path)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        TASKS[name].load(tmp_path)
