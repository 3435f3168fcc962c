"""Scores stored as rows of `tokenprune eval`, together with scores that a model is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import tokenprune
from tokenprune.errors import DataError
from tokenprune.evals.run.setups import Pruned, Setup
from tokenprune.evals.storage.answers import AnswerKey
from tokenprune.evals.storage.results import TaskResult, digest
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tune.questions import Half
from tokenprune.evals.tune.scoring import ModelScorer


class Recorded:
    """A Scorer that takes scores from stored rows, and asks the model only about setups that have none.

    rows: results on exactly these `questions`; DataError for others. setups: the setups of the rows. They cannot be
    run: their strategies have the right class, but not the settings. costs: the share of the visual tokens that each
    of these setups keeps.
    """

    def __init__(self, scorer: ModelScorer, rows: Sequence[TaskResult], questions: Sequence[Question]) -> None:
        self._scorer, self._scores = scorer, dict[AnswerKey, float]()
        of_key = {}
        for row in rows:
            asked = [question for question in questions if question.task == row.task]
            if digest([question.id for question in asked]) != row.questions:
                raise DataError(f"{row.key}: its row is about other questions of {row.task}: see --limit and --apart")
            of_key[row.key] = row
            for split, scores in row.scores.items():
                for question, score in zip((one for one in asked if one.split == split), scores, strict=True):
                    assert score != "failed"
                    self._scores[AnswerKey.of(question, row.key)] = score or 0.0
        self.setups = [_setup(row) for row in of_key.values()]
        self.costs = {key: row.n_mean / row.n_visual for key, row in of_key.items()}

    def ask(self, setups: Sequence[Setup], half: Half) -> None:
        self._scorer.ask([setup for setup in setups if setup.key not in self.costs], half)

    def scores(self, setup: Setup, questions: Sequence[Question]) -> list[float]:
        if setup.key in self.costs:
            return [self._scores[AnswerKey.of(one, setup.key)] for one in questions]
        return self._scorer.scores(setup, questions)


def _setup(row: TaskResult) -> Pruned:
    strategy = getattr(tokenprune, row.strategy.split()[0])()
    return Pruned(label=row.strategy, keep_ratio=row.keep_ratio, strategy=strategy)
