"""What only video tasks have: missing videos, the parts that are shown, and metrics of several kinds."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.files.tasks import VIDEO_SETS
from helpers.files.videos import levels

from tokenprune.errors import DataError
from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question


def loaded(folder: Path, name: str, form: str = "published") -> Sequence[Question]:
    VIDEO_SETS[name, form](folder)
    return TASKS[name].load(folder)


@pytest.mark.parametrize(("name", "form"), VIDEO_SETS)
def test_a_missing_video_is_named(tmp_path: Path, name: str, form: str) -> None:
    questions = loaded(tmp_path, name, form)
    video = next(image for question in questions for image in question.images if isinstance(image, Path))
    video.unlink()
    with pytest.raises(DataError, match=rf"(row \d+|\[\d+\]): missing video .*{video.stem}"):
        TASKS[name].load(tmp_path)


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
