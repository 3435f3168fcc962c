"""Scorers equal published ones, whose scores of some answers, computed outside this repository, are in a file.

MMMU's are its authors' (mmmu/utils/eval_utils.py, bb0b95a), all others lmms-eval's (75571cf).
"""

import json
from pathlib import Path

import pytest

from tokenprune.evals.models.prompt_styles import LLAVA
from tokenprune.evals.tasks import TASKS, mathvista, mmmu, videomme
from tokenprune.evals.tasks.base.choices import Choice, lettered
from tokenprune.evals.tasks.base.short_answers import anls
from tokenprune.evals.tasks.hallusionbench import FigureQuestion, read
from tokenprune.evals.tasks.mathvista import Number
from tokenprune.evals.tasks.ocrbench import contains, contains_formula
from tokenprune.evals.tasks.screenspot import Click

SCORES = json.loads(Path(__file__).with_name("published_scores.json").read_text())
SCORERS = {"ocrbench": contains, "hme": contains_formula, "infovqa": anls}


def test_answers() -> None:
    assert {name for name, *_ in SCORES["answers"]} == set(SCORERS)
    for name, answer, truths, score in SCORES["answers"]:
        assert SCORERS[name](answer, truths) == pytest.approx(score), (name, answer, truths)


def test_hallusionbench() -> None:
    for rows, expected in SCORES["hallusionbench"]:
        answered = [(_figure_question(row), row[-1]) for row in rows]
        metrics = TASKS["hallusionbench"].metrics(answered)
        assert {name: metric.value for name, metric in metrics.items()} == pytest.approx(expected)


def _figure_question(row: list[str]) -> FigureQuestion:
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


def test_mmmu() -> None:
    """Where the authors take a random letter, there is none."""
    for answer, options, letter in SCORES["mmmu letters"]:
        assert mmmu.read(answer, lettered(options)) == letter, (answer, options)
    for answer, truths, score in SCORES["mmmu open"]:
        assert mmmu.concludes(answer, truths) == score, (answer, truths)


def test_mathvista() -> None:
    """lmms-eval had a judge that extracts the whole answer; it then takes the choice that is most similar."""
    for kind, answer_type, precision, choices, truth, answer, score in SCORES["mathvista"]:
        if kind == "multi_choice":
            options = lettered(choices)
            letter = "ABCD"[choices.index(truth)]
            question = Choice(task="", id="", images=(), text="", options=options, letter=letter, read=mathvista.read)
        else:
            question = Number(task="", id="", images=(), text="", answer=truth, kind=answer_type, decimals=precision)
        found = question.score(answer)
        assert found in ({score, None} if not score or kind == "multi_choice" else {score}), (truth, answer)


def test_screenspot() -> None:
    for answer, (left, top, right, bottom), score in SCORES["screenspot"]:
        box, size = (200.0 * left, 100.0 * top, 200.0 * right, 100.0 * bottom), (200, 100)
        question = Click(task="", id="", images=(), text="", size=size, style=LLAVA, box=box)
        assert question.score(answer) == score, (answer, box)


def test_longvideobench() -> None:
    for answer, letter in SCORES["longvideobench"]:
        assert videomme.read(answer, lettered(["", "", "", "", ""])) == letter, answer
