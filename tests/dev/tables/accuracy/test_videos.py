"""The tables of strategies on videos."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from helpers.files.rows import row

from tokenprune.evals.dev.clips import kind_of
from tokenprune.evals.dev.tables.accuracy.videos import (
    accuracy_table,
    by_kind,
)
from tokenprune.evals.models.bundled import CLIPS
from tokenprune.evals.storage.results import TaskResult


def test_kinds_are_those_of_the_bundled_questions() -> None:
    questions = json.loads((CLIPS / "val_q.json").read_text())
    answers = [answer["answer"] for answer in json.loads((CLIPS / "val_a.json").read_text())]
    kinds = [kind_of(number) for number in range(len(questions))]
    assert Counter(kinds) == {"when": 70, "where": 140, "what": 70, "absent": 140}
    for kind, asked, answer in zip(kinds, questions, answers, strict=True):
        assert (kind == "absent") == (answer == "no")
        assert (kind == "what") == (asked["question"] == "what is this?")
    two = [set(kinds[begin : begin + 3]) for begin in range(3, len(kinds), 6)]  # every second clip has two objects
    assert two == [{"when", "where", "absent"}] * 70


@pytest.fixture
def rows() -> list[TaskResult]:
    """Return rows on twelve questions about four clips: the unpruned model is always right, Random is wrong about what
    appears, and EVS is right only about "where"."""
    kinds = [kind_of(number) for number in range(12)]
    images = {"val": [number // 3 for number in range(12)]}
    return [
        by_kind(row(strategy, "original", ratio, {"val": [float(kind != wrong) for kind in kinds]}, images=images))
        for strategy, ratio, wrong in (("unpruned", 1.0, ""), ("Random", 0.4, "when"), ("EVS", 0.4, "where"))
    ]


def test_accuracy_is_shown_by_kind(rows: list[TaskResult]) -> None:
    head, _, unpruned, random, evs = str(accuracy_table(rows)).splitlines()
    assert "all (n = 12) | when (n = 2) | where (n = 4) | what (n = 2) | absent (n = 4)" in head
    assert [cell.split()[0] for cell in random.split(" | ")[4:]] == ["83.3", "0.0", "100.0", "100.0", "100.0"]
    assert [cell.split()[0] for cell in evs.split(" | ")[4:]] == ["66.7", "100.0", "0.0", "100.0", "100.0"]
    assert unpruned.split(" | ")[4].startswith("100.0")
