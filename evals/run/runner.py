"""Ask a model questions in batches, each under every setup, and record what each answer cost."""

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tokenprune.errors import TokenPruneError, user_location
from tokenprune.evals.models.greedy import generate_greedily
from tokenprune.evals.models.video_prompts import adapter_for_clips
from tokenprune.evals.run.batches import DecodedQuestion, batches, encode_batch, group_by_encoding
from tokenprune.evals.run.costs import kv_cache_bytes, visual_costs
from tokenprune.evals.run.plan import Part
from tokenprune.evals.run.settings import OnError
from tokenprune.evals.run.setups import Setup, read_by
from tokenprune.evals.storage.answers import Answer, AnswerKey
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.video import VideoQuestion


class QuestionError(TokenPruneError, RuntimeError):
    """A question raised an error. The run stops, because an error is never scored as a wrong answer."""


@dataclass(frozen=True)
class Runner:
    """Asks `model` questions under `setups`.

    batch_tokens: the largest batch, in unpruned tokens including padding. A longer prompt is a batch of its own.
    on_error: "stop" raises QuestionError at the first question that fails; "record" stores the error in the answer and
        continues. Neither scores the question.
    warms_up: whether an untimed call of the model precedes the first answer. It allocates memory and, on a GPU, loads
        kernels, which would otherwise count as time of the first setup.
    """

    model: Any
    processor: Any
    setups: Sequence[Setup]
    batch_tokens: int
    on_error: OnError = "stop"
    warms_up: bool = False
    _is_warm: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

    def ask(self, part: Part) -> Iterator[list[Answer]]:
        """Yield the missing answers of a part, a few at a time."""
        setups = self.setups
        if isinstance(part.questions[0], VideoQuestion):  # all of a task's are, or none
            of_clips = adapter_for_clips(self.model, self.processor)
            setups = setups if of_clips is None else read_by(of_clips, setups)
        decoded: list[DecodedQuestion] = []
        for question in part.questions:
            try:
                decoded.append(DecodedQuestion.of(question, self.processor))
            except Exception as error:  # noqa: BLE001  # raised again by _failed, or recorded
                asked = [setup for setup in setups if AnswerKey.of(question, setup.key) in part.missing]
                yield [self._failed(question, setup, error) for setup in asked]
        groups = group_by_encoding(self.processor, setups)
        for batch in batches(decoded, self.batch_tokens):
            for group in groups:
                yield from self._ask_batch(batch, group, part)

    def _ask_batch(
        self, batch: Sequence[DecodedQuestion], setups: Sequence[Setup], part: Part
    ) -> Iterator[list[Answer]]:
        """Ask a whole batch again if any of its answers is missing, so that it stays the same batch; one question at a
        time if the processor cannot encode them together."""
        inputs = None
        for setup in setups:
            missing = {
                asked for decoded in batch if (asked := AnswerKey.of(decoded.question, setup.key)) in part.missing
            }
            if not missing:
                continue
            if inputs is None:
                try:
                    inputs = encode_batch(self.model, self.processor, batch, setup)
                except Exception as error:  # noqa: BLE001  # raised again by _failed, or recorded
                    if len(batch) == 1:
                        yield [self._failed(batch[0].question, setup, error)]
                        continue
                    for decoded in batch:  # PerceptionLM's processor cannot batch images of 3 and of 5 tiles
                        yield from self._ask_batch([decoded], setups, part)
                    return
            answers = self._answers(batch, inputs, setup, part.first_id)
            yield [answer for answer in answers if answer.answer_key in missing]

    def _answers(self, batch: Sequence[DecodedQuestion], inputs: Any, setup: Setup, first_id: str) -> list[Answer]:
        try:
            return self._generated(batch, inputs, setup, first_id)
        except Exception as error:
            if len(batch) == 1:
                return [self._failed(batch[0].question, setup, error)]
            release_locals(error)
            answers = [
                answer
                for decoded in batch
                for inputs in [encode_batch(self.model, self.processor, [decoded], setup)]
                for answer in self._answers([decoded], inputs, setup, first_id)
            ]
            if all(answer.error is None for answer in answers):
                names = ", ".join(decoded.question.id for decoded in batch)
                raise QuestionError(
                    f"{setup.key}: stopped at {names}: {_described(error)}. Each of them succeeds alone, so the batch "
                    f"is too large: lower --batch-tokens, which is {self.batch_tokens}, and name another --output."
                ) from error
            return answers

    @torch.inference_mode()
    def _generated(self, batch: Sequence[DecodedQuestion], inputs: Any, setup: Setup, first_id: str) -> list[Answer]:
        questions = [decoded.question for decoded in batch]
        longest = max(question.max_new_tokens for question in questions)
        with setup.patched(self.model) as handle:
            if self.warms_up and not self._is_warm:
                generate_greedily(self.model, encode_batch(self.model, self.processor, batch[:1], setup), 2)
                self._is_warm.append(True)
            start = time.perf_counter()
            output = generate_greedily(self.model, inputs, longest)
            own = zip(output[:, inputs["input_ids"].shape[1] :].tolist(), questions, strict=True)
            written = [row[: question.max_new_tokens] for row, question in own]  # as if each were asked alone
            texts = [text.strip() for text in self.processor.batch_decode(written, skip_special_tokens=True)]
            seconds = time.perf_counter() - start  # tolist waited for the device
            costs = visual_costs(self.model, self.processor, setup, handle, inputs["input_ids"])
            cache_bytes = {
                decoded.question.id: kv_cache_bytes(
                    self.model, encode_batch(self.model, self.processor, [decoded], setup)
                )
                for decoded in batch
                if decoded.question.id == first_id
            }
        return [
            Answer.to(
                question,
                setup.key,
                text=text,
                score=question.score(text),  # of the stored text, from which metrics follow
                **vars(cost),
                seconds=seconds / len(batch),
                kv_cache_bytes=cache_bytes.get(question.id),
            )
            for question, text, cost in zip(questions, texts, costs, strict=True)
        ]

    def _failed(self, question: Question, setup: Setup, error: Exception) -> Answer:
        return failed(question, setup, error, self.on_error)


def failed(question: Question, setup: Setup, error: Exception, on_error: OnError) -> Answer:
    """Return the record of a failed question, or raise QuestionError if the run should stop."""
    if on_error == "stop":
        reason, images = _described(error), [str(image) for image in question.images]
        named = "" if all(image in reason for image in images) else f" ({', '.join(images)})"
        raise QuestionError(
            f"{setup.key}: stopped at {question.id}{named}: {reason}. Correct it and type the same again; if that "
            f"changed questions or images, name another --output. `tokenprune eval --on-error record` leaves them out."
        ) from error
    return Answer.to(question, setup.key, text="", score=None, error=f"{type(error).__name__}: {error}")


def release_locals(error: BaseException | None) -> None:
    """Release the locals of the functions that an error passed through: if memory ran out, the tensors that filled it,
    without which the same questions fit one by one. The traceback's locations remain."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _described(error: Exception) -> str:
    """Return the message of an error raised on purpose, without its full stop; for any other, its type and its place in
    the user's code, such as a strategy's."""
    if isinstance(error, (TokenPruneError, OSError)):
        return str(error).rstrip(".")
    place = user_location(error)
    return f"{type(error).__name__}: {error}".rstrip(".") + ("" if place is None else f" ({place})")
