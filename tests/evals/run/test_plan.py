"""Plans: every question is asked once, shared among processes."""

from dataclasses import replace

import pytest

from tokenprune.evals.run.plan import PART, Plan
from tokenprune.evals.run.setups import Unpruned
from tokenprune.evals.tasks.base.question import Question


def test_plans_have_no_twins(questions: list[Question]) -> None:
    with pytest.raises(ValueError, match=r"question .*'1'.* appears twice"):
        Plan([questions[0], questions[0]], [Unpruned()])


@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_processes_share_all_questions(questions: list[Question], n_processes: int) -> None:
    many = [replace(questions[0], id=str(i)) for i in range(5 * PART + 1)]
    plan = Plan(many, [Unpruned()])
    shares = [
        [asked for part in plan.parts(frozenset(), index, n_processes) for asked in part.missing]
        for index in range(n_processes)
    ]
    assert sorted(asked.id for share in shares for asked in share) == sorted(question.id for question in many)
    assert [len(share) for share in shares] == [plan.n_asked(index, n_processes) for index in range(n_processes)]
    assert min(map(len, shares)) > PART
