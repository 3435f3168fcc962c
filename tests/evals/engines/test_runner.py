"""How many questions an engine is given at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.files.evals import tiny_processor, write_vqav2

from tokenprune.evals.engines.engine import EngineError, Prompt
from tokenprune.evals.engines.offline import Offline
from tokenprune.evals.engines.runner import EngineRunner, visual_token
from tokenprune.evals.run.plan import PART, Plan
from tokenprune.evals.run.setups import Setup, make_setups
from tokenprune.evals.storage.answers import AnswerKey
from tokenprune.evals.tasks import TASKS


class Counting(Offline):
    """Answers nothing, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def ask(self, prompts: Sequence[Prompt], setup: Setup) -> list[Any]:
        self.asked.append((setup.label, len(prompts)))
        return [EngineError("no answer")] * len(prompts)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    write_vqav2(tmp_path, n=1)
    (question,) = TASKS["vqa"].load(tmp_path)
    asked = [replace(question, task=task, id=f"{task} {i}") for task, n in (("a", 70), ("b", 3)) for i in range(n)]
    return Plan(asked, make_setups(["grid"], [0.25], ["original"], ["unpruned"]))


def asked(plan: Plan, done: set[AnswerKey]) -> list[tuple[str, int]]:
    engine = Counting()
    answers = list(EngineRunner(engine, tiny_processor(), "record").ask(list(plan.parts(done)), plan.setups))
    missing = [AnswerKey(one.task, one.id, setup.key) for one in plan.questions for setup in plan.setups]
    found = [one.answer_key for some in answers for one in some]
    assert sorted(map(str, found)) == sorted(str(one) for one in missing if one not in done)
    return engine.asked


def test_sixty_four_questions_of_a_task_at_a_time(plan: Plan) -> None:
    """More than a part of the plan, whose length is for batches of a model in this process."""
    assert Offline.at_once == 64 > PART
    numbers = [64, 64, 6, 6, 3, 3]
    assert asked(plan, set()) == [(setup.label, n) for setup, n in zip([*plan.setups] * 3, numbers, strict=True)]


def test_what_is_missing_is_asked_together(plan: Plan) -> None:
    first, second = plan.setups
    done = {AnswerKey("a", f"a {i}", setup.key) for i in range(0, 70, 2) for setup in plan.setups}
    done |= {AnswerKey("a", "a 1", first.key), *(AnswerKey("b", f"b {i}", second.key) for i in range(3))}
    assert asked(plan, done) == [(first.label, 34), (second.label, 35), (first.label, 3)]


def test_the_token_of_visual_tokens() -> None:
    """Gemma 3's processor gives the marker before them the name that other processors give them."""
    gemma = {"boi_token": "<start>", "image_token": "<start>", "image_token_id": 1}
    assert visual_token(SimpleNamespace(**gemma, tokenizer=SimpleNamespace(image_token_id=2))) == 2
    assert visual_token(SimpleNamespace(boi_token="<start>", image_token="<image>", image_token_id=3)) == 3
    assert visual_token(tiny_processor()) == tiny_processor().image_token_id
