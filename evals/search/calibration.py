"""Calibration data: questions that are drawn at random and asked one by one."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenprune.adapters.devices import input_device
from tokenprune.errors import SettingError
from tokenprune.evals.defaults import ALL_SPLITS, CALIBRATION_SPLIT
from tokenprune.evals.models.loading import load_processor
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.run.questions import load_questions, notices
from tokenprune.evals.tasks.base.question import Question
from tokenprune.prompts import encode_chat


def draw_questions(
    model: str, data: Path, split: str | None, n_drawn: int, seed: int, say: Callable[[str], None]
) -> tuple[list[Question], str | None]:
    """Draw `n_drawn` questions about `data` at random, without labels, in the prompt style of `model`; return them and
    the split they come from (None for all).

    split: ALL_SPLITS, or the name of one; None is CALIBRATION_SPLIT or, if the data set has no splits, all of it.
    say: called with what the user should know about the questions, see `notices`.

    Does not load the model's weights, so that mistakes are reported before that.
    """
    style = style_of(*load_processor(model))
    chosen = None if split == ALL_SPLITS else split
    questions = load_questions(data, split=chosen, style=style, labels=False)
    if split is None and any(question.split for question in questions):
        chosen = CALIBRATION_SPLIT
        questions = load_questions(data, split=chosen, style=style, labels=False)
    drawn = sample_questions(questions, n_drawn, seed)
    for notice in notices(drawn, data, None, has_tasks=False):
        say(notice)
    return drawn, chosen


def sample_questions(questions: Sequence[Question], n_drawn: int, seed: int) -> list[Question]:
    """Draw `n_drawn` questions at random and return them in their own order. SettingError if there are fewer."""
    if n_drawn > len(questions):
        raise SettingError(
            f"{n_drawn} questions requested, but there are only {len(questions)}; write --questions {len(questions)}"
        )
    drawn = np.random.default_rng(seed).choice(len(questions), n_drawn, replace=False)
    return [questions[index] for index in sorted(drawn)]


def encode_each(model: Any, processor: Any, questions: Sequence[Question]) -> Iterator[tuple[Question, Any]]:
    """Yield each question with its encoded prompt on the model's device."""
    for question in questions:
        inputs = encode_chat(processor, [question.open_images()], [question.text])
        yield question, inputs.to(input_device(model), model.dtype)


def check_not_empty(questions: Sequence[Question]) -> None:
    """Raise SettingError if there are no questions."""
    if not questions:
        raise SettingError("no questions, so there is nothing to measure on. Ask for at least one.")
