"""Questions with the answers to learn, as batches with labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenprune.errors import DataError, UnsupportedError
from tokenprune.evals.reading.images import size_of
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.short_answers import ShortAnswer
from tokenprune.evals.tasks.base.video import VideoQuestion
from tokenprune.evals.tasks.base.yes_no import YesNo
from tokenprune.evals.tasks.refcoco import RefCocoQuestion
from tokenprune.zoom.prompts import encode_chat

IGNORED = -100  # the label that every Hugging Face loss leaves out


@dataclass(frozen=True)
class Example:
    """A question and the answer that the model shall give."""

    question: Question
    answer: str

    @property
    def size(self) -> tuple[int, int]:
        """Grows with the tokens that it takes: the pixels of its images, then the characters of its text."""
        pixels = sum(width * height for width, height in map(size_of, self.question.images))
        return pixels, len(self.question.text) + len(self.answer)


def chosen(questions: Sequence[Question], n: int, seed: int) -> list[Question]:
    """Return `n` questions drawn at random, in their original order; all of them if there are no more than `n`."""
    if len(questions) <= n:
        return list(questions)
    numbers = np.random.default_rng(seed).permutation(len(questions))[:n]
    return [questions[number] for number in sorted(numbers)]


def check_images(questions: Sequence[Question]) -> None:
    """Raise UnsupportedError for a question about a video."""
    for question in questions:
        if isinstance(question, VideoQuestion):
            raise UnsupportedError(f"{question.id} is about a video, and adapters are trained on images. Leave it out.")


def labelled(questions: Sequence[Question]) -> list[Example]:
    """The questions with their right answers. DataError for a kind of question whose answers cannot be written."""
    return [Example(question, right_answer(question)) for question in questions]


def right_answer(question: Question) -> str:
    """The right answer as the model would write it: of several accepted ones, the commonest."""
    if isinstance(question, ShortAnswer):
        return Counter(question.answers).most_common(1)[0][0]
    if isinstance(question, RefCocoQuestion):
        return question.style.write(question.box, question.size)
    if isinstance(question, YesNo):
        return "yes" if question.truth else "no"
    raise DataError(
        f"{question.id}: how a right answer of task {question.task} is written is not known here. Write --no-labels to "
        f"learn the unpruned model's own answers."
    )


@dataclass(frozen=True)
class Collator:
    """Makes a batch of examples: prompts padded on the left, then answers padded on the right, with labels for the
    answers and their end alone."""

    processor: Any
    dtype: torch.dtype

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        prompts = encode_chat(
            self.processor,
            [example.question.open_images() for example in examples],
            [example.question.text for example in examples],
        )
        answers = [self._tokens(example) for example in examples]
        longest = max(map(len, answers))
        ids = torch.tensor([own + [self._pad] * (longest - len(own)) for own in answers])
        real = torch.tensor([[1] * len(own) + [0] * (longest - len(own)) for own in answers])
        batch = {name: self._extended(value, ids, real, name, prompts) for name, value in prompts.items()}
        ignored = torch.full_like(prompts["input_ids"], IGNORED)
        return {**batch, "labels": torch.cat([ignored, ids.masked_fill(real == 0, IGNORED)], 1)}

    def _extended(self, value: Any, ids: Tensor, real: Tensor, name: str, prompts: Mapping[str, Any]) -> Any:
        """An input of the prompts, made as long as prompts with answers if it runs along the sequence."""
        if name == "input_ids":
            return torch.cat([value, ids], 1)
        if name == "attention_mask":
            return torch.cat([value, real.to(value.dtype)], 1)
        if isinstance(value, Tensor) and value.shape == prompts["input_ids"].shape:
            return torch.cat([value, torch.zeros_like(ids, dtype=value.dtype)], 1)  # types of tokens: text
        return value.to(self.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    def _tokens(self, example: Example) -> list[int]:
        tokenizer = self.processor.tokenizer
        found = tokenizer(example.answer, add_special_tokens=False)["input_ids"]
        if not found:
            raise DataError(f"{example.question.id}: an answer without tokens cannot be learnt; leave the question out")
        return [*found, tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else list(found)

    @property
    def _pad(self) -> int:
        tokenizer = self.processor.tokenizer
        return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
