"""Rows from answers: the accuracy of a setup, and questions that could not be read or asked."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.asking import ask, identity
from helpers.files.sets import png, write_lines, write_tsv
from helpers.files.tasks import CONTENTS, SETS
from helpers.tiny import tiny_llava

from tokenprune.evals.run import aggregate
from tokenprune.evals.run.setups import Unpruned, make_setups
from tokenprune.evals.storage.answers import Answer
from tokenprune.evals.storage.results import TaskResult, compare
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question


def test_a_row_for_each_setup_and_task(questions: list[Question]) -> None:
    compared = make_setups(["random:seed=3", "fopru:mode=row", "downsample"], [0.5])
    answers = {answer.answer_key: answer for answer in ask(tiny_llava(), questions, compared)}
    rows = aggregate.task_results(questions, compared, answers, dataset="a", model="b", identity=identity())
    assert [(row.strategy, row.position_ids) for row in rows] == [
        ("unpruned", "original"),
        ("Random 3", "original"),
        ("Random 3", "compact"),
        ("FoPru row", "original"),
        ("FoPru row", "compact"),
        ("downsample", "original"),
    ]
    assert [(row.n_kept, row.n_mean, row.n_visual) for row in rows] == [(36, 36, 36), *[(18, 18, 36)] * 4, (16, 16, 36)]
    for row in rows:
        assert (row.n, row.unparsable, row.failed, row.accuracy) == (3, 1, 0, pytest.approx(2 / 3))
        assert row.metrics == {"accuracy": pytest.approx(2 / 3)}
        assert row.scores == {"val": [1, None], "test": [1]}
        assert row.images == {"val": [0, 0], "test": [0]}
        assert row.questions == rows[0].questions
        # Keys and values of 2 layers with 2 heads, 8 wide, 4 bytes; the first prompt has 7 words besides the image.
        assert row.kv_cache_bytes == 2 * 2 * 2 * 8 * 4 * (row.n_kept + 7)
        assert row.seconds is not None
        assert row.seconds > 0
        assert {"torch", "transformers", "tokenprune"} <= set(row.versions)
        json.dumps(row.settings)
    assert rows[1].settings == {"keep_ratio": 0.5, "keep": None, "budget_per": "image", "seed": 3}
    assert len({answer.text for answer in answers.values()}) > 3  # the setups do differ


def rows_of(
    folder: Path, task: str, texts: Sequence[str | None], truths: Sequence[str]
) -> tuple[TaskResult, TaskResult, Sequence[Question]]:
    """Return the rows of a model that answers a task's questions with `texts` (None if one cannot be asked), and of one
    that gives the right answers."""
    questions, compared = TASKS[task].load(folder), [Unpruned(), *make_setups(["grid"], [0.5], ["original"], [])]
    answers = [
        Answer(
            question.task, question.id, question.split, *setup.key, text=text or "", score=question.score(text or "")
        )
        if text is not None
        else Answer(question.task, question.id, question.split, *setup.key, text="", score=None, error="broken")
        for setup, said in zip(compared, (truths, texts), strict=True)
        for question, text in zip(questions, said, strict=True)
    ]
    found = {answer.answer_key: answer for answer in answers}
    unpruned, pruned = aggregate.task_results(questions, compared, found, dataset="a", model="b", identity=identity())
    return pruned, unpruned, questions


def test_turns_count_together(tmp_path: Path) -> None:
    """Of three questions with two turns each, one turn of the second cannot be asked, and one answer of the third
    cannot be read."""
    (question,) = CONTENTS["mmbench"]["published"]["mmbench_dev.tsv"]["tsv"]
    records = [question | {"index": n, "image": base64.b64encode(png() + bytes(n)).decode()} for n in (5, 6, 7)]
    write_tsv(tmp_path / "mmbench_dev.tsv", records)
    pruned, unpruned, questions = rows_of(tmp_path, "mmbench", ["A", "B", "A", None, "A", "what?"], "ABABAB")
    assert [question.group for question in questions] == ["5", "5", "6", "6", "7", "7"]
    assert unpruned.scores == {"dev": [1, 1, 1]}
    assert pruned.scores == {"dev": [1, "failed", None]}
    assert (pruned.n, pruned.accuracy, pruned.unparsable, pruned.failed) == (2, 0.5, 1, 1)
    assert pruned.metrics == {"circular accuracy": 0.5, "accuracy": 1}
    assert pruned.images == unpruned.images == {"dev": [0, 1, 2]}
    against = compare(pruned, unpruned)
    assert (against.n, against.difference, against.lost) == (2, -0.5, 1)


def test_a_pair_that_cannot_be_asked_as_a_whole_counts_nowhere(tmp_path: Path) -> None:
    SETS["mme", "published"](tmp_path)
    pruned, unpruned, _ = rows_of(tmp_path, "mme", ["Yes", None, "Yes", "Yes"], ["Yes", "No", "Yes", "No"])
    assert pruned.scores == {"": ["failed", "failed", 1, 0]}
    assert (pruned.metrics["accuracy"], pruned.metrics["accuracy+"]) == (pruned.accuracy, 0) == (0.5, 0)
    assert unpruned.metrics["accuracy+"] == 1
    assert compare(pruned, unpruned).n == 2


def test_every_metric_has_an_interval(tmp_path: Path) -> None:
    pope = CONTENTS["pope"]["published"]["coco_pope_random.json"]["lines"]
    records = [row | {"image": f"{n}.jpg", "question_id": 2 * n + k} for n in range(20) for k, row in enumerate(pope)]
    write_lines(tmp_path / "coco_pope_random.json", records)
    (tmp_path / "images").mkdir()
    for n in range(20):
        (tmp_path / "images" / f"{n}.jpg").write_bytes(png() + bytes(n))
    pruned, _, questions = rows_of(tmp_path, "pope", ["yes", "no", "no", "no"] * 10, ["yes", "no"] * 20)
    assert len(questions) == 40
    assert pruned.metrics == pytest.approx(
        {"accuracy": 0.75, "F1": 2 / 3, "precision": 1, "recall": 0.5, "yes-rate": 0.25}
    )
    assert set(pruned.intervals) == set(pruned.metrics)
    for name, (low, high) in pruned.intervals.items():
        assert 0 < low <= pruned.metrics[name] <= high <= 1
        assert low < high
    assert pruned.intervals["accuracy"] == pruned.interval
