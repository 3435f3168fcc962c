"""Scorers equal lmms-eval's source, whose scores of some answers, run outside this repository, are in a file."""

import json
from pathlib import Path

import pytest

from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.short_answers import anls
from tokenprune.evals.tasks.hallusionbench import FigureQuestion, read
from tokenprune.evals.tasks.ocrbench import contains, contains_formula

SCORES = json.loads(Path(__file__).with_name("lmms_scores.json").read_text())
SCORERS = {"ocrbench": contains, "hme": contains_formula, "infovqa": anls}


def test_answers() -> None:
    assert {name for name, *_ in SCORES["answers"]} == set(SCORERS)
    for name, answer, truths, score in SCORES["answers"]:
        assert SCORERS[name](answer, truths) == pytest.approx(score), (name, answer, truths)


def test_hallusionbench() -> None:
    for rows, expected in SCORES["hallusionbench"]:
        answered = [(_question(row), row[-1]) for row in rows]
        metrics = TASKS["hallusionbench"].metrics(answered)
        assert {name: metric.value for name, metric in metrics.items()} == pytest.approx(expected)


def _question(row: list[str]) -> FigureQuestion:
    category, subcategory, of_set, figure, asked, truth, _ = row
    place = f"{category}-{subcategory}-{of_set}"
    return FigureQuestion(
        task="hallusionbench",
        id=f"{place}-{figure}-{asked}",
        images=(),
        text="",
        truth=truth == "1",
        read=read,
        figure=f"{place}-{figure}",
        asked=f"{place}-{asked}",
    )
