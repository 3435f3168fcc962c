"""Questions with their images decoded, cut into batches by their tokens and encoded once for all setups."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tokenprune.evals.models.devices import input_device
from tokenprune.evals.models.prompts import encode
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.tasks._base.question import Question


@dataclass(frozen=True, eq=False)
class Shown:
    """A question with its images decoded, and how many tokens its prompt has without pruning."""

    question: Question
    images: list[Image.Image]
    n_tokens: int

    @classmethod
    def of(cls, question: Question, processor: Any) -> "Shown":
        images = question.open_images()
        return cls(question, images, encode(processor, [images], [question.text])["input_ids"].shape[1])


def batches(shown: Sequence[Shown], batch_tokens: int) -> Iterator[list[Shown]]:
    """Yield batches of at most `batch_tokens` tokens, padding included; a longer prompt is a batch of its own.

    The longest come first: what does not fit into memory fails at once, and neighbours need little padding.
    """
    batch: list[Shown] = []
    for one in sorted(shown, key=lambda one: -one.n_tokens):
        if batch and batch[0].n_tokens * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def encoded(model: Any, processor: Any, batch: Sequence[Shown], setup: Setup) -> Any:
    """Return the model's inputs, on its device."""
    images, questions = [one.images for one in batch], [one.question.text for one in batch]
    inputs = encode(processor, images, questions, **setup.processor_options(processor))
    return inputs.to(input_device(model), model.dtype)


def by_encoding(processor: Any, setups: Sequence[Setup]) -> list[list[Setup]]:
    """Group setups whose inputs are the same: all those that do not change the image itself."""
    groups: dict[str, list[Setup]] = {}
    for setup in setups:
        groups.setdefault(json.dumps(setup.processor_options(processor)), []).append(setup)
    return list(groups.values())
