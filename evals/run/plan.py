"""What a run has to ask: every question under every setup, in parts that any process can take."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby

from tokenprune.evals.run.answers import Asked
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.tasks._base.question import Sample

#: Questions of one task that are encoded together and cut into batches. Neither the number of processes nor what is
#: already answered moves a question into another part, so that its batch, and with it every bit of its answer, is the
#: same in a run that was killed and in one on several devices.
PART = 32


@dataclass(frozen=True)
class Part:
    """Some questions of one task, and what of them is still to be asked."""

    samples: Sequence[Sample]
    missing: Set[Asked]
    #: Of the task's first question, on which the KV cache is measured; it need not be in this part.
    first_id: str


class Plan:
    """All questions under all setups."""

    def __init__(self, samples: Sequence[Sample], setups: Sequence[Setup]) -> None:
        self.samples, self.setups = samples, setups
        self._parts = [
            (chunk, of_task[0].id)
            for of_task in (list(group) for _, group in groupby(samples, lambda sample: sample.task))
            for chunk in (of_task[start : start + PART] for start in range(0, len(of_task), PART))
        ]
        _check_distinct([(sample.task, sample.id) for sample in samples], "question")
        _check_distinct([str(setup.key) for setup in setups], "setup")

    def parts(self, done: Set[Asked], process: int = 0, n_processes: int = 1) -> Iterator[Part]:
        """Yield what process number `process` has still to ask."""
        for samples, first_id in self._parts[process::n_processes]:
            missing = self._asked(samples) - done
            if missing:
                yield Part(samples, missing, first_id)

    def n_asked(self, process: int = 0, n_processes: int = 1) -> int:
        """How many answers the process has to give, those that are done included."""
        return len(self.setups) * sum(len(samples) for samples, _ in self._parts[process::n_processes])

    def _asked(self, samples: Sequence[Sample]) -> set[Asked]:
        return {Asked(sample.task, sample.id, c.key) for c in self.setups for sample in samples}


def _check_distinct(names: Sequence[object], what: str) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f"the {what} {name} is there twice; answers to it could not be told apart")
        seen.add(name)
