"""A question of any set, as the runner needs it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tokenprune.evals.reading.images import StoredImage, content_digest, open_image
from tokenprune.evals.reading.videos import Clip

#: A task and an ID, which identify a question in a run.
QuestionKey = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Question(ABC):
    """One question about one or more images, and how to score an answer to it.

    task: the name of its task in `TASKS`. id: its name in results and errors.
    text: the prompt after the images, exactly as published.
    split, category: the set's own names, "" if it has none.
    group: questions of one group count as one, if the set says so.
    max_new_tokens: the length of the longest right answer.
    """

    task: str
    id: str
    images: tuple[StoredImage, ...]
    text: str
    split: str = ""
    category: str = ""
    group: str = ""
    max_new_tokens: int = 32

    @property
    def key(self) -> QuestionKey:
        return self.task, self.id

    @abstractmethod
    def score(self, answer: str) -> float | None:
        """Return 0 to 1, or None if the answer cannot be read, which counts as 0 and is reported separately."""

    def open_images(self) -> list[Image.Image]:
        """Return the decoded images, upright and RGB."""
        return [open_image(image) for image in self.images]

    def open_clip(self) -> Clip | None:
        """Return the frames read of the question's video; None if it is about images."""
        return None


def number_images(questions: Sequence[Question]) -> list[int]:
    """Number the images of each question: equal for questions that share an image, directly or through others, because
    their answers are not independent."""
    known: dict[object, int] = {}
    pairs = [
        (number, len(questions) + known.setdefault(identity, len(known)))
        for number, question in enumerate(questions)
        for identity in identities(question)
    ]
    n = len(questions) + len(known)
    places = tuple(zip(*pairs, strict=True)) or ((), ())
    labels = connected_components(coo_array((np.ones(len(pairs)), places), shape=(n, n)), directed=False)[1]
    order: dict[int, int] = {}
    return [order.setdefault(int(label), len(order)) for label in labels[: len(questions)]]


def identities(question: Question) -> tuple[object, ...]:
    """What identifies a question's images: their contents, because a set may hold a copy of an image for each question
    about it, as a file or in a table."""
    return tuple(
        content_digest(image) if isinstance(image, Path) else getattr(image, "content", image)  # a folder has none
        for image in question.images
    )
