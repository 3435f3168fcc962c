"""The unpruned model's own answers, on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from rich.console import Console

from tokenprune.errors import DataError
from tokenprune.evals.adapt.examples import Example
from tokenprune.evals.adapt.generation import RowGenerator, UnprunedAnswer
from tokenprune.evals.adapt.rows import Row
from tokenprune.evals.run.plan import Plan
from tokenprune.evals.run.progress import plain_printer, progress_bar
from tokenprune.evals.run.runner import Runner
from tokenprune.evals.run.setups import Unpruned
from tokenprune.evals.storage.answers import Answer
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks.base.question import Question, QuestionKey

UNPRUNED = Unpruned()


def own_answers(
    generator: RowGenerator,
    groups: Sequence[tuple[Question, ...]],
    folder: Path,
    console: Console,
    *,
    batch: int,
    batch_tokens: int,
) -> Mapping[QuestionKey, UnprunedAnswer]:
    """Return the model's answer to each question, "" if it has none.

    Answers on disk are not asked again, and have no known distributions. DataError if there are no answers at all.

    groups: questions about the same images. If a group has several, they are asked at once, `batch` groups in a
        forward; otherwise one by one, `batch_tokens` tokens in a forward.
    """
    run, say = RunFolder(folder), plain_printer(console)
    with run.writing() as write, progress_bar(console) as progress:
        known = {(key.task, key.id): UnprunedAnswer(answer.text, None) for key, answer in run.answers().items()}
        bar = progress.add_task("unpruned answers", total=sum(map(len, groups)), completed=len(known))
        if _can_generate_at_once(generator, groups, say):
            asked = _at_once(generator, groups, batch, known.keys())
        else:
            asked = _one_by_one(generator, [question for group in groups for question in group], batch_tokens, run)
        for batch_answers in asked:
            new = [(answer, unpruned) for answer, unpruned in batch_answers if (answer.task, answer.id) not in known]
            write([answer for answer, _ in new])
            known |= {(answer.task, answer.id): unpruned for answer, unpruned in new}
            progress.advance(bar, len(new))
    n_answered = sum(answer.text != "" for answer in known.values())
    if not n_answered:
        raise DataError("the unpruned model answers none of the questions, so there is nothing to learn from it.")
    say(f"Learning the unpruned model's own answers to {n_answered} questions.")
    return known


def _can_generate_at_once(
    generator: RowGenerator, groups: Sequence[tuple[Question, ...]], say: Callable[[str], None]
) -> bool:
    largest = max(groups, key=len)
    if len(largest) == 1:
        return False
    reason = generator.why_not_at_once(Row(tuple(Example(question, None) for question in largest)))
    if reason is not None:
        say(f"Asking one question at a time, although several are about the same image: {reason}.")
    return reason is None


def _at_once(
    generator: RowGenerator, groups: Sequence[tuple[Question, ...]], batch: int, done: Set[QuestionKey]
) -> Iterator[list[tuple[Answer, UnprunedAnswer]]]:
    """Ask a batch again as a whole if any of its answers is missing, so that it stays the same batch."""
    for start in range(0, len(groups), batch):
        asked = groups[start : start + batch]
        if not done >= {question.key for group in asked for question in group}:
            rows = [Row(tuple(Example(question, None) for question in group)) for group in asked]
            yield [
                (_answer(question, answer.text), answer)
                for group, of_row in zip(asked, generator.generate(rows), strict=True)
                for question, answer in zip(group, of_row, strict=True)
            ]


def _one_by_one(
    generator: RowGenerator, questions: Sequence[Question], batch_tokens: int, run: RunFolder
) -> Iterator[list[tuple[Answer, UnprunedAnswer]]]:
    runner = Runner(generator.model, generator.collator.processor, [UNPRUNED], batch_tokens)
    for part in Plan(questions, [UNPRUNED]).parts(run.answers().keys()):
        for answers in runner.ask(part):
            yield [(answer, UnprunedAnswer(answer.text, None)) for answer in answers]


def _answer(question: Question, text: str) -> Answer:
    """The stored form of an answer that needs no score or cost."""
    return Answer.to(question, UNPRUNED.key, text=text, score=None)
