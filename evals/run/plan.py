"""Plan a run: every question under every setup, in parts that any process can take."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby

from tokenprune.evals.reading.fields import check_distinct
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.storage.answers import AnswerKey
from tokenprune.evals.tasks.base.question import Question

#: Questions of one task that are batched together. A question's part depends neither on the number of processes nor on
#: existing answers, so its batch, and every bit of its answer, is the same in a resumed run and in one on several
#: devices.
PART = 32


@dataclass(frozen=True)
class Part:
    """Some questions of one task, and the answers that are still missing."""

    questions: Sequence[Question]
    missing: Set[AnswerKey]
    #: ID of the task's first question, on which the KV cache is measured; it may be in another part.
    first_id: str


class Plan:
    """All questions under all setups. DataError if two questions have the same name."""

    def __init__(self, questions: Sequence[Question], setups: Sequence[Setup]) -> None:
        self.questions, self.setups = questions, setups
        self._parts = [
            (chunk, of_task[0].id)
            for of_task in (list(group) for _, group in groupby(questions, lambda question: question.task))
            for chunk in (of_task[start : start + PART] for start in range(0, len(of_task), PART))
        ]
        check_distinct([question.key for question in questions], "this run")

    def parts(self, done: Set[AnswerKey], process: int = 0, n_processes: int = 1) -> Iterator[Part]:
        """Yield the parts in which process number `process` has answers missing."""
        for questions, first_id in self._parts[process::n_processes]:
            missing = self._asked(questions) - done
            if missing:
                yield Part(questions, missing, first_id)

    def n_asked(self, process: int = 0, n_processes: int = 1) -> int:
        """Return how many answers the process gives in all, including finished ones."""
        return len(self.setups) * sum(len(questions) for questions, _ in self._parts[process::n_processes])

    def _asked(self, questions: Sequence[Question]) -> set[AnswerKey]:
        return {AnswerKey.of(question, setup.key) for setup in self.setups for question in questions}
