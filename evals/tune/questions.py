"""The questions of a tuning: two halves, and the order of asking.

Settings are searched on the first half. The best are tested on the second, because the best of many on a given set of
questions is partly the luckiest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tokenprune.errors import DataError
from tokenprune.evals.tasks.base.question import Question, QuestionKey, number_images

#: Questions that are batched together. The halves are cut into such chunks once, so that every answer is bitwise the
#: same, whatever was asked before.
CHUNK = 16
#: With fewer images, a half is uninformative.
LEAST_IMAGES = 8

Chunk = tuple[Question, ...]


@dataclass(frozen=True)
class Half:
    """Chunks of questions, ordered so that every prefix is a fair sample of the tasks."""

    chunks: tuple[Chunk, ...]

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        return tuple(question for chunk in self.chunks for question in chunk)

    @cached_property
    def images(self) -> list[int]:
        """The number of each question's image, equal for questions about the same one."""
        return number_images(self.questions)

    def first(self, n: int) -> Half:
        """The fewest chunks that hold `n` questions, or all."""
        counts = np.cumsum([len(chunk) for chunk in self.chunks])
        return Half(self.chunks[: int(np.searchsorted(counts, n)) + 1])


def halves(questions: Sequence[Question], seed: int) -> tuple[Half, Half]:
    """Split the questions at random by image, so that no image is in both halves. DataError if there are too few
    images."""
    numbers = image_numbers(questions)
    images = sorted(set(numbers.values()))
    if len(images) < 2 * LEAST_IMAGES:
        raise DataError(
            f"{len(questions)} questions about {len(images)} images: tuning searches on one half and tests on the "
            f"other, and needs at least {2 * LEAST_IMAGES} images; those that one question is about count once. Use "
            f"more questions, or all of them."
        )
    order = np.random.default_rng(seed).permutation(images)
    first = {int(number) for number in order[: len(order) // 2]}
    place = {int(number): position for position, number in enumerate(order)}
    shuffled = sorted(questions, key=lambda question: place[numbers[question.key]])
    return (
        in_chunks([question for question in shuffled if numbers[question.key] in first]),
        in_chunks([question for question in shuffled if numbers[question.key] not in first]),
    )


def image_numbers(questions: Sequence[Question]) -> Mapping[QuestionKey, int]:
    """The number of each question's image, by task and ID, equal for questions about the same one."""
    return dict(zip((question.key for question in questions), number_images(questions), strict=True))


def in_chunks(questions: Sequence[Question]) -> Half:
    """Chunks of these questions, each of one task, with tasks taking turns."""
    of_task: dict[str, list[Question]] = {}
    for question in questions:
        of_task.setdefault(question.task, []).append(question)
    placed: list[tuple[float, Chunk]] = []
    for asked in of_task.values():
        for start in range(0, len(asked), CHUNK):
            chunk = tuple(asked[start : start + CHUNK])
            placed.append(((start + len(chunk) / 2) / len(asked), chunk))
    return Half(tuple(chunk for _, chunk in sorted(placed, key=lambda pair: pair[0])))
