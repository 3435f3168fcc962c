"""How many answers are missing, and roughly how long they will take on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tokenprune.evals.dev.measure.plan import BOTH, Part, is_inside
from tokenprune.evals.dev.measure.run import Group, Measuring
from tokenprune.evals.dev.measure.steps import Step
from tokenprune.evals.run.setups import UNPRUNED as NOT_PRUNED

TIMED = 8  # questions that are asked to time an answer


def estimate(run: Measuring, part: Part) -> tuple[int, float]:
    """Return the number of a part's missing answers, and the seconds that they will take.

    Strategies before the language model are assumed to be as fast as Random, those inside it as the first of them, and
    those that prune in the vision tower as the unpruned model.
    """
    missing = [(step, group) for step in run.steps(part) for group in run.missing(step)]
    if not missing:
        return 0, 0.0
    first, task = run.steps(part)[0], missing[0][1].task
    _seconds(run, first, task, NOT_PRUNED, limit=1)  # warms up
    whole = _seconds(run, first, task, NOT_PRUNED)
    timed: dict[tuple[Step, str], float] = {}
    n_answers, seconds = 0, 0.0
    for step, group in missing:
        n = run.n_questions(part, group.task)
        n_answers += n * group.n_setups
        if step is first or not group.is_shared:
            seconds += n * group.n_setups * whole
            continue
        like = next(filter(is_inside, group.setups), "random")
        if (step, like) not in timed:
            timed[step, like] = _seconds(run, step, task, "random", like)
        seconds += n * (group.n_setups * timed[step, like] + whole)  # the vision tower is part of the whole
    return n_answers, seconds


def _seconds(run: Measuring, step: Step, task: str, *strategies: str, limit: int = TIMED) -> float:
    """Return the wall time of an answer with the last strategy. It excludes the vision tower if another setup was asked
    before."""
    group = Group(task, {name: step.setups(name) for name in strategies}, BOTH, is_shared=True)
    with tempfile.TemporaryDirectory() as folder:
        *_, last = run.ask(step, group, Path(folder), limit)
    return last.seconds or 0.0
