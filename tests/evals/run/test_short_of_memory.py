"""Batches that do not fit into memory."""

import weakref
from typing import Any

import pytest
import torch
from helpers.asking import ask
from helpers.tiny import tiny_llava

from tokenprune.evals.run.runner import QuestionError
from tokenprune.evals.run.setups import Unpruned
from tokenprune.evals.tasks.base.question import Question


def test_a_batch_that_is_too_large(questions: list[Question], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llava()
    generate = model.generate

    def short_of_memory(**inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 1:
            raise torch.OutOfMemoryError("no memory left")
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", short_of_memory)
    for on_error in ("stop", "record"):
        with pytest.raises(
            QuestionError,
            match=r"1: OutOfMemoryError: no memory left \(.*\)\. .*lower --batch-tokens, which is 4096, and name ",
        ):
            ask(model, questions, [Unpruned()], on_error=on_error)
    assert len(ask(model, questions, [Unpruned()], batch_tokens=60)) == 3


class Tensors:
    """Fills the memory."""


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_a_batch_has_filled_is_free_for_its_questions(
    wrapped: bool, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception keeps the locals of the functions that it passed through. Otherwise each question would fail like
    its batch."""
    model = tiny_llava()
    generate, held = model.generate, list[weakref.ref[Tensors]]()

    def fill() -> None:
        tensors = Tensors()
        held.append(weakref.ref(tensors))
        raise torch.OutOfMemoryError("no memory left")

    def short_of_memory(**inputs: Any) -> Any:
        if len(inputs["input_ids"]) == 1:
            assert [one() for one in held] == [None]
            return generate(**inputs)
        try:
            fill()
        except torch.OutOfMemoryError as error:
            if wrapped:
                raise RuntimeError("in a hook") from error
            raise

    monkeypatch.setattr(model, "generate", short_of_memory)
    with pytest.raises(QuestionError, match=r"Each of them succeeds alone"):
        ask(model, questions, [Unpruned()])
    assert len(held) == 1
