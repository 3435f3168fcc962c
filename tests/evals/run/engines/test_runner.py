"""Requests to an engine: how many at a time, for which keep ratio, and what a server says of itself."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.files.evals import brief, saved, tiny_processor, write_vqav2
from helpers.served.stored import save
from helpers.simulated.openai_server import Answering, serving
from helpers.tiny import tiny_llava

from tokenprune import Compose, FoPru, Grid, PixelPrune, Strategy
from tokenprune.errors import SettingError
from tokenprune.evals import evaluate
from tokenprune.evals.models.loading import load_processor
from tokenprune.evals.run.engines.backend import EngineBackend
from tokenprune.evals.run.engines.engine import EngineError, Prompt, Reply, request_ratio
from tokenprune.evals.run.engines.offline import Offline
from tokenprune.evals.run.engines.runner import EngineRunner
from tokenprune.evals.run.engines.server import Server
from tokenprune.evals.run.plan import PART, Plan
from tokenprune.evals.run.setups import Pruned, Setup, Unpruned, make_setups
from tokenprune.evals.storage.answers import Answer, AnswerKey
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.short_answers import ShortAnswer
from tokenprune.serving.vllm.settings import Settings


class Counting(Offline):
    """Answers nothing, and counts requests."""

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
    answers = list(EngineRunner(engine, tiny_processor(), 2, "record").ask(list(plan.parts(done)), plan.setups))
    missing = [AnswerKey.of(one, setup.key) for one in plan.questions for setup in plan.setups]
    found = [one.answer_key for some in answers for one in some]
    assert sorted(map(str, found)) == sorted(str(one) for one in missing if one not in done)
    return engine.asked


def test_sixty_four_questions_of_a_task_at_a_time(plan: Plan) -> None:
    """That is more than a part of the plan, whose length suits batches of a model in this process."""
    assert Offline.at_once == 64 > PART
    numbers = [64, 64, 6, 6, 3, 3]
    assert asked(plan, set()) == [(setup.label, n) for setup, n in zip([*plan.setups] * 3, numbers, strict=True)]


def test_what_is_missing_is_asked_together(plan: Plan) -> None:
    first, second = plan.setups
    done = {AnswerKey("a", f"a {i}", setup.key) for i in range(0, 70, 2) for setup in plan.setups}
    done |= {AnswerKey("a", "a 1", first.key), *(AnswerKey("b", f"b {i}", second.key) for i in range(3))}
    assert asked(plan, done) == [(first.label, 34), (second.label, 35), (first.label, 3)]


class Sliced:
    """A processor that writes an image as three slices of 15 visual tokens (ID 7) with text between them."""

    def apply_chat_template(self, *args: Any, **options: Any) -> str:
        return "a chat"

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        return {"input_ids": torch.tensor([[1, *[7] * 15, 2, *[7] * 15, 2, *[7] * 15, 3]])}


class Keeping(Counting):
    """Keeps `n_kept` of 45 visual tokens, in a prompt with `n_others` other tokens."""

    def __init__(self, n_kept: int, n_others: int) -> None:
        super().__init__()
        self.reply = Reply("yes", n_kept + n_others)

    def ask(self, prompts: Sequence[Prompt], setup: Setup) -> list[Any]:
        return [self.reply] * len(prompts)


def answer_of(backend: EngineBackend | EngineRunner, plan: Plan) -> Answer:
    """Return the answer to the first question under the pruned setup."""
    part = next(plan.parts(set()))
    ((answer,),) = backend.ask([replace(part, questions=part.questions[:1])], plan.setups[1:])
    return answer


@pytest.mark.parametrize(("n_kept", "error"), [(11, None), (12, None), (13, "has 13 of 45 visual tokens, but 11")])
def test_slices_whose_budgets_are_rounded_one_by_one(plan: Plan, n_kept: int, error: str | None) -> None:
    """A quarter of the image's 45 tokens is 11; a quarter of 15 is 4, three times."""
    answer = answer_of(EngineRunner(Keeping(n_kept, 4), Sliced(), 7, "record"), plan)
    if error is None:
        assert (answer.n_visual, answer.n_kept) == (45, n_kept)
    else:
        assert error in str(answer.error)


def test_what_is_scored_is_what_is_stored(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Keeping(12, 4)
    engine.reply = Reply("\nNo ", 16)
    monkeypatch.setattr(ShortAnswer, "score", lambda self, answer: float(answer == "No"))
    answer = answer_of(EngineRunner(engine, Sliced(), 7), plan)
    assert (answer.text, answer.score) == ("No", 1.0)


def test_what_the_processor_calls_image_token_may_be_a_marker(plan: Plan, tmp_path: Path) -> None:
    """In Llama 4, it precedes the overview."""
    save("llama4", tmp_path / "model")
    config, processor = load_processor(str(tmp_path / "model"))
    answer = answer_of(EngineBackend(Keeping(2, 16), "model", config, processor, "stop"), plan)
    assert (answer.n_visual, answer.n_kept) == (9, 2)


# The keep ratio that a request asks an engine for.


def pruned(strategy: Strategy, keep_ratio: float) -> Pruned:
    return Pruned(label="", keep_ratio=keep_ratio, strategy=strategy)


@pytest.mark.parametrize("own", [FoPru(keep_ratio=0.25), Compose(PixelPrune(), FoPru(keep_ratio=0.25))])
def test_none_but_its_own(own: Strategy) -> None:
    settings = Settings(own)
    assert request_ratio(pruned(own, 0.25), settings) is None
    assert request_ratio(pruned(own, 0.1), settings) == 0.1
    assert request_ratio(Unpruned(), settings) == 1


def test_a_ratio_of_1_that_prunes() -> None:
    """A ratio of 1 in a request would turn pruning off."""
    settings = Settings(PixelPrune())
    assert request_ratio(pruned(PixelPrune(), 1.0), settings) is None
    assert request_ratio(pruned(PixelPrune(), 0.5), settings) == 0.5
    assert request_ratio(Unpruned(), settings) == 1


def test_an_engine_that_prunes_nothing_need_not_be_asked() -> None:
    assert request_ratio(Unpruned(), Settings(Grid(keep_ratio=1.0))) is None


# What a server says of itself: the generation config that it answers with, or that it has failed to say.


SETTINGS = {"strategy": "fopru", "keep_ratio": 0.25}


def test_a_server_with_another_generation_config_does_not_resume_a_run(tmp_path: Path) -> None:
    write_vqav2(tmp_path / "data", n=2)
    model = saved(tiny_llava(), tmp_path / "model")
    answering = Answering(brief(tiny_llava()), tiny_processor(), SETTINGS)
    named: dict[str, Any] = {"data": tmp_path / "data", "output": tmp_path / "run", "baselines": []}
    with serving(answering) as url:
        evaluate(model, engine=url, **named)
        answering.generation = {"eos_token_id": 2, "temperature": 0.7, "max_tokens": 99}  # requests have their own
        evaluate(model, engine=url, **named)
        assert RunFolder(tmp_path / "run").record["identity"]["model"]["generation"] == {"eos_token_id": 2}
        answering.generation = {"eos_token_id": 2, "repetition_penalty": 1.05}
        with pytest.raises(SettingError, match=r"generation\.repetition_penalty=None and not .*=1\.05"):
            evaluate(model, engine=url, **named)


def test_a_server_that_does_not_report_its_generation_config(tmp_path: Path) -> None:
    write_vqav2(tmp_path / "data", n=2)
    model = saved(tiny_llava(), tmp_path / "model")
    answering = Answering(brief(tiny_llava()), tiny_processor(), SETTINGS, generation=None)
    with serving(answering) as url:
        evaluate(model, data=tmp_path / "data", output=tmp_path / "run", baselines=[], engine=url)
    assert "generation" not in RunFolder(tmp_path / "run").record["identity"]["model"]


def test_a_server_that_fails_to_say_what_it_prunes_with_is_not_a_plain_one() -> None:
    class Failing(Answering):
        def get(self, path: str) -> tuple[int, Any]:
            return (500, {"error": {"message": "broken"}}) if path == "/tokenprune" else super().get(path)

    refusal = pytest.raises(EngineError, match="/tokenprune: HTTP 500: broken")
    with serving(Failing(None, None, SETTINGS)) as url, refusal:
        Server(url, "model")
