"""Questions with the answers to learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tokenprune.errors import DataError, UnsupportedError
from tokenprune.evals.tasks.base.question import Question, identities
from tokenprune.evals.tasks.base.short_answers import ShortAnswer
from tokenprune.evals.tasks.base.video import VideoQuestion
from tokenprune.evals.tasks.base.yes_no import YesNo
from tokenprune.evals.tasks.refcoco import RefCocoQuestion

T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """A question and the answer that the model should give; None if not known yet."""

    question: Question
    answer: str | None


def by_image(questions: Sequence[Question], most: int) -> list[tuple[Question, ...]]:
    """Groups of at most `most` questions about the same images."""
    by_image: dict[tuple[object, ...], list[Question]] = {}
    for question in questions:
        by_image.setdefault(identities(question), []).append(question)
    groups = []
    for own in by_image.values():
        n_groups = -(-len(own) // most)
        groups += [tuple(own[number::n_groups]) for number in range(n_groups)]
    return groups


def sample_groups(groups: Sequence[T], n: int, seed: int) -> list[T]:
    """Draw `n` groups at random, in their original order; all of them if there are no more than `n`."""
    if len(groups) <= n:
        return list(groups)
    numbers = np.random.default_rng(seed).permutation(len(groups))[:n]
    return [groups[number] for number in sorted(numbers)]


def check_images(questions: Sequence[Question]) -> None:
    """Raise UnsupportedError for a question about a video."""
    for question in questions:
        if isinstance(question, VideoQuestion):
            raise UnsupportedError(
                f"{question.id} is about a video, but adapters learn from images only. Leave it out."
            )


def labelled(questions: Sequence[Question]) -> list[Example]:
    """The questions with their right answers. DataError for a kind of question whose answers cannot be written."""
    return [Example(question, right_answer(question)) for question in questions]


def right_answer(question: Question) -> str:
    """The right answer as the model would write it; the most common if several are accepted."""
    if isinstance(question, ShortAnswer):
        return Counter(question.answers).most_common(1)[0][0]
    if isinstance(question, RefCocoQuestion):
        return question.style.write(question.box, question.size)
    if isinstance(question, YesNo):
        return "yes" if question.truth else "no"
    raise DataError(
        f"{question.id}: tokenprune cannot write a right answer for task {question.task}. Use --no-labels to learn the "
        f"unpruned model's own answers."
    )
