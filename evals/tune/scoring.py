"""Scores of setups, from answers that are on disk before the next batch is asked. No question is asked twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from tokenprune.errors import SettingError
from tokenprune.evals.boxes import HIT, iou
from tokenprune.evals.run.plan import Part
from tokenprune.evals.run.runner import Runner
from tokenprune.evals.run.setups import Pruned, Setup, Unpruned
from tokenprune.evals.storage.answers import Answer, AnswerKey, SetupKey
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks.base.box import BoxQuestion
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.short_answers import plain
from tokenprune.evals.tune.first_token import FirstTokens
from tokenprune.evals.tune.questions import Half
from tokenprune.evals.tune.settings import Compare
from tokenprune.evals.tune.sharing import shared_encoder, shares

UNPRUNED = Unpruned()
#: What a question's score measures, from 0 to 1. accuracy: how right the answer is. agreement: whether it says the same
#: as the unpruned model's. overlap: of its first token's distribution with the unpruned model's.
Measure = Literal["accuracy", "agreement", "overlap"]
Write = Callable[[Sequence[Answer]], None]


@runtime_checkable
class Scorer(Protocol):
    """Scores setups on questions."""

    def ask(self, setups: Sequence[Setup], half: Half) -> None:
        """Ask every question of a half under every setup."""
        ...

    def scores(self, setup: Setup, questions: Sequence[Question]) -> list[float]:
        """The score of each question, 0 to 1. All must have been asked."""
        ...


class ModelScorer:
    """Asks a loaded model, and scores its answers.

    advance: called with the number of new answers, to show progress.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        write: Write,
        answers: Sequence[Answer],
        *,
        measure: Measure,
        batch_tokens: int,
        advance: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.model, self.processor, self.measure, self.advance = model, processor, measure, advance
        self._write, self._batch_tokens = write, batch_tokens
        self._answers = {answer.answer_key: _slim(answer) for answer in answers}
        self._counted = set[AnswerKey]()

    def ask(self, setups: Sequence[Setup], half: Half) -> None:
        """Ask every question of a half under every setup, unless already answered."""
        pruned = [setup.strategy for setup in setups if isinstance(setup, Pruned)]
        sharing = [setup for setup in setups if not isinstance(setup, Pruned) or shares(setup.strategy)]
        alone = [setup for setup in setups if setup not in sharing]
        with shared_encoder(self.model, [strategy for strategy in pruned if shares(strategy)]):
            self._ask(sharing, half)
        self._ask(alone, half)

    def scores(self, setup: Setup, questions: Sequence[Question]) -> list[float]:
        """The score of each question, 0 to 1. All must have been asked."""
        return [self._score(question, self._answer(setup.key, question)) for question in questions]

    def n_tokens(self, setup: Setup, questions: Sequence[Question]) -> list[float]:
        """How many visual tokens of each question a decoder layer sees on average. All must have been asked."""
        return [self._answer(setup.key, question).n_mean for question in questions]

    def _ask(self, setups: Sequence[Setup], half: Half) -> None:
        kind = FirstTokens if self.measure == "overlap" else Runner
        runner = kind(self.model, self.processor, setups, self._batch_tokens)
        for chunk in half.chunks:
            asked = {AnswerKey.of(question, setup.key) for question in chunk for setup in setups}
            missing = asked - self._answers.keys()
            self._count(asked - missing)
            for answers in runner.ask(Part(chunk, missing, first_id="")) if missing else ():
                slim = [_slim(answer) for answer in answers]
                self._write(slim)
                self._answers |= {answer.answer_key: answer for answer in slim}
                self._count({answer.answer_key for answer in answers})

    def _count(self, given: set[AnswerKey]) -> None:
        new = given - self._counted
        self._counted |= new
        self.advance(len(new))

    def _answer(self, key: SetupKey, question: Question) -> Answer:
        return self._answers[AnswerKey.of(question, key)]

    def _score(self, question: Question, answer: Answer) -> float:
        if self.measure == "agreement":
            return agreement(question, answer.text, self._answer(UNPRUNED.key, question).text)
        return answer.score or 0.0


def measure_of(labels: bool, compare: Compare | None) -> Measure:
    """What is measured with or without right answers. SettingError for a comparison with right answers."""
    if labels and compare is not None:
        raise SettingError(
            f"compare={compare!r} applies only if right answers are not read. Add labels=False (--no-labels), or leave "
            f"compare out."
        )
    if labels:
        return "accuracy"
    return "overlap" if compare == "first-token" else "agreement"


def agreement(question: Question, answer: str, unpruned: str) -> float:
    """Whether an answer says what the unpruned model says: a box with an IoU of at least 0.5 with its box, or the same
    words in any case."""
    if plain(answer) == plain(unpruned):  # even a box without an area, which overlaps nothing
        return 1.0
    if isinstance(question, BoxQuestion):
        boxes = question.answered_box(answer), question.answered_box(unpruned)
        if boxes[0] is not None and boxes[1] is not None:
            return float(iou(boxes[0], boxes[1]) >= HIT)
    return 0.0


@contextmanager
def locked_answers(folder: Path) -> Iterator[tuple[Write, list[Answer]]]:
    """Lock a folder against other processes; yield a function that appends answers to it, and its existing answers."""
    run = RunFolder(folder)
    with run.writing() as write:
        yield write, list(run.answers().values())


def _slim(answer: Answer) -> Answer:
    """The answer without the list of kept tokens, which is longer than the rest and not used."""
    return replace(answer, kept=())
