"""Ask an engine questions under every setup, and record the same answers as the model in this process would give."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tokenprune.evals.run.engines.engine import Engine, EngineError, Prompt, Reply
from tokenprune.evals.run.plan import Part
from tokenprune.evals.run.runner import failed
from tokenprune.evals.run.settings import OnError
from tokenprune.evals.run.setups import Pruned, Setup
from tokenprune.evals.storage.answers import Answer, AnswerKey
from tokenprune.evals.tasks.base.question import Question
from tokenprune.prompts import chat_prompt, encode_chat, tokenizer_options


@dataclass(frozen=True)
class PromptedQuestion:
    """A question, its prompt, and its unpruned lengths by the processor: of the prompt, and of every run of visual
    tokens in it."""

    question: Question
    prompt: Prompt
    n_tokens: int
    parts: list[int]

    @classmethod
    def of(cls, question: Question, processor: Any, visual_token: int) -> PromptedQuestion:
        images = question.open_images()
        ids = encode_chat(processor, [images], [question.text])["input_ids"][0].tolist()
        chat = chat_prompt(processor, question.text, len(images))
        special = tokenizer_options(processor, chat).get("add_special_tokens", True)
        prompt = Prompt(images, question.text, chat, question.max_new_tokens, special)
        return cls(question, prompt, len(ids), [len([*part]) for token, part in groupby(ids) if token == visual_token])

    @property
    def n_visual(self) -> int:
        return sum(self.parts)


@dataclass(frozen=True)
class EngineRunner:
    """Asks an engine. visual_token: the ID of visual tokens in a prompt. on_error: as in `Runner`."""

    engine: Engine
    processor: Any
    visual_token: int
    on_error: OnError = "stop"

    def ask(self, parts: Sequence[Part], setups: Sequence[Setup]) -> Iterator[list[Answer]]:
        """Yield the missing answers of all parts under some setups that the engine is serving, for as many questions of
        a task at a time as the engine takes."""
        for _, of_task in groupby(parts, lambda part: part.questions[0].task):
            rest = [
                (question, part.missing)
                for part in of_task
                for question in part.questions
                if _missing(question, part, setups)
            ]
            for start in range(0, len(rest), self.engine.at_once):
                together = rest[start : start + self.engine.at_once]
                for setup in setups:
                    questions = [
                        question for question, missing in together if AnswerKey.of(question, setup.key) in missing
                    ]
                    if questions:
                        yield self._asked(questions, setup)

    def _asked(self, questions: Sequence[Question], setup: Setup) -> list[Answer]:
        prompted: list[PromptedQuestion] = []
        answers: list[Answer] = []
        for question in questions:
            try:
                prompted.append(PromptedQuestion.of(question, self.processor, self.visual_token))
            except Exception as error:  # noqa: BLE001  # raised again by failed(), or recorded
                answers.append(failed(question, setup, error, self.on_error))
        start = time.perf_counter()
        replies = self.engine.ask([each.prompt for each in prompted], setup) if prompted else []
        seconds = (time.perf_counter() - start) / max(1, len(prompted))
        return [
            *answers,
            *(self._answer(each, setup, reply, seconds) for each, reply in zip(prompted, replies, strict=True)),
        ]

    def _answer(self, prompted: PromptedQuestion, setup: Setup, reply: Reply | Exception, seconds: float) -> Answer:
        question = prompted.question
        if isinstance(reply, Exception):
            return failed(question, setup, reply, self.on_error)
        text = reply.text.strip()
        n_kept = prompted.n_visual - (prompted.n_tokens - reply.n_prompt)
        if (wrong := self._miscounted(prompted, setup, n_kept)) is not None:
            return failed(question, setup, wrong, self.on_error)
        return Answer.to(
            question,
            setup.key,
            text=text,
            score=question.score(text),
            n_visual=prompted.n_visual,
            n_kept=n_kept,
            n_mean=float(n_kept),
            seconds=seconds,
        )

    @staticmethod
    def _miscounted(prompted: PromptedQuestion, setup: Setup, n_kept: int) -> EngineError | None:
        """Return an error if the engine did not keep as many visual tokens as the setup does, or kept more where the
        pixels may leave fewer. Budgets are rounded per image, or in MiniCPM-V per slice, since there is text between
        slices."""
        strategy = setup.strategy if isinstance(setup, Pruned) else None
        budget = int if strategy is None else strategy.budget
        expected = budget(prompted.n_visual)
        if strategy is not None and "kept_before_tower" in strategy.needs and 0 < n_kept < expected:
            return None
        if abs(n_kept - expected) < max(1, len(prompted.prompt.images)) or n_kept == sum(map(budget, prompted.parts)):
            return None
        return EngineError(
            f"{setup.key}: the engine's prompt has {n_kept} of {prompted.n_visual} visual tokens, but {expected} "
            f"should be kept. Its model, chat template or settings differ from those of this command."
        )


def _missing(question: Question, part: Part, setups: Sequence[Setup]) -> bool:
    """Return whether any of these setups has not answered a question of a part."""
    return any(AnswerKey.of(question, setup.key) in part.missing for setup in setups)
