"""The runner on a tiny random model: batches, what is asked, and what happens when a question cannot be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.asking import Echo, ask, identity, without_times
from helpers.files.evals import brief, tiny_processor
from helpers.files.search import deep_llava
from helpers.models.staged import LAYERS
from helpers.tiny import tiny_llava
from PIL import Image

import tokenprune
from tokenprune.evals.run import aggregate
from tokenprune.evals.run import batches as batching
from tokenprune.evals.run.backend import InProcessBackend
from tokenprune.evals.run.batches import DecodedQuestion, batches
from tokenprune.evals.run.plan import Plan
from tokenprune.evals.run.runner import QuestionError, failed
from tokenprune.evals.run.setups import Pruned, Unpruned, make_setups
from tokenprune.evals.search.plot import tokens_per_layer
from tokenprune.evals.storage.results import compare
from tokenprune.evals.tasks.base.question import Question
from tokenprune.prompts import encode_chat
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.tokens import VisualTokens


def test_what_was_kept_is_in_the_answer(questions: list[Question]) -> None:
    (setup,) = make_setups(["grid"], [0.25], ["original"], [])
    model = tiny_llava()
    (answer,) = ask(model, questions[:1], [setup])
    with setup.patched(model) as handle:
        model(**encode_chat(tiny_processor(), [questions[0].open_images()], [questions[0].text]))
    (kept,) = answer.kept
    assert kept.grids == ((1, 6, 6),)
    assert np.flatnonzero(kept.mask(36)).tolist() == handle.report.images[0].kept.tolist()


def test_tokens_of_a_strategy_that_drops_on_the_way(questions: list[Question]) -> None:
    (setup,) = make_setups(["vflowopt"], [0.25], ["original"], [])
    assert isinstance(setup, Pruned)
    assert isinstance(setup.strategy, VFlowOpt)
    (answer,) = ask(deep_llava(), questions[:1], [setup])
    per_layer = tokens_per_layer(setup.strategy, LAYERS, 36)
    assert (answer.n_kept, answer.n_mean) == (per_layer[0], pytest.approx(sum(per_layer) / LAYERS))
    assert answer.n_kept > 9 >= answer.n_mean


def test_batches_do_not_change_answers(questions: list[Question]) -> None:
    model, compared = tiny_llava(), make_setups(["fopru", "downsample"], [0.25])
    assert without_times(ask(model, questions, compared)) == without_times(
        ask(model, questions, compared, batch_tokens=1)
    )


def test_a_longer_answer_in_a_batch_lengthens_no_other(questions: list[Question]) -> None:
    short, long = (replace(one, max_new_tokens=n) for one, n in zip(questions, (2, 9), strict=False))
    model, compared = tiny_llava(), make_setups(["fopru"], [0.25])
    together, alone = (ask(model, [short, long], compared, batch_tokens=most) for most in (1000, 1))
    assert {one.answer_key: one.text for one in together} == {one.answer_key: one.text for one in alone}


def test_beams_of_a_generation_config_are_not_searched(questions: list[Question]) -> None:
    model, compared = brief(tiny_llava()), make_setups(["fopru"], [0.25], ["original"])
    expected = without_times(ask(model, questions, compared))
    model.generation_config.num_beams = 3
    assert without_times(ask(model, questions, compared)) == expected


def test_what_is_scored_is_what_is_stored(questions: list[Question], monkeypatch: pytest.MonkeyPatch) -> None:
    """POPE reads `No` and not `\\nNo`, and metrics are computed from the stored answer."""
    monkeypatch.setattr(type(tiny_processor()), "batch_decode", lambda self, rows, **_: ["\nNo"] * len(rows))
    monkeypatch.setattr(Echo, "score", lambda self, answer: float(answer == "No"))
    assert {(one.text, one.score) for one in ask(tiny_llava(), questions, [Unpruned()])} == {("No", 1.0)}


def test_the_first_call_of_a_run_is_not_timed(questions: list[Question], monkeypatch: pytest.MonkeyPatch) -> None:
    model, seconds = brief(tiny_llava()), [0.0]
    generate = model.generate

    def slow_at_first(**inputs: Any) -> Any:
        seconds[0] += 0 if seconds[0] else 60
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", slow_at_first)
    monkeypatch.setattr("tokenprune.evals.run.runner.time.perf_counter", lambda: seconds[0])
    compared = make_setups(["grid"], [0.25], ["original"])
    parts = list(Plan(questions, compared).parts(set()))
    answers = [
        one for some in InProcessBackend(model, tiny_processor(), 4096, "stop").ask(parts, compared) for one in some
    ]
    assert len(answers) == 2 * len(questions)
    assert {one.seconds for one in answers} == {0.0}


def test_large_images_are_decoded_again(
    questions: list[Question], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All images of a part of the plan would not fit into memory."""
    Image.new("RGB", (50, 40), "seagreen").save(folder / "large.png")
    large = replace(questions[0], id="large", images=(folder / "large.png",))
    monkeypatch.setattr(batching, "MOST_HELD", 50 * 40)
    assert DecodedQuestion.of(large, tiny_processor()).images is not None
    monkeypatch.setattr(batching, "MOST_HELD", 50 * 40 - 1)
    assert DecodedQuestion.of(large, tiny_processor()).images is None
    monkeypatch.undo()
    compared = make_setups(["fopru", "downsample"], [0.25])
    expected = without_times(ask(tiny_llava(), questions, compared))
    monkeypatch.setattr(batching, "MOST_HELD", 0)
    assert without_times(ask(tiny_llava(), questions, compared)) == expected


def test_batches_are_counted_in_tokens(questions: list[Question]) -> None:
    """Prompts have 43, 46 and 49 tokens. The longest come first, and padding counts."""
    shown = [DecodedQuestion.of(question, tiny_processor()) for question in questions]
    assert [one.n_tokens for one in shown] == [43, 46, 49]

    def ids(batch_tokens: int) -> list[str]:
        return ["".join(one.question.id for one in batch) for batch in batches(shown, batch_tokens)]

    assert ids(3 * 49) == ["321"]
    assert ids(3 * 49 - 1) == ["32", "1"]
    assert ids(1) == ["3", "2", "1"]


def test_what_is_answered_is_not_asked_again(questions: list[Question]) -> None:
    model, compared = tiny_llava(), make_setups(["grid"], [0.25])
    everything = ask(model, questions, compared)
    done = {answer.answer_key for answer in everything[::2]}
    rest = ask(model, questions, compared, done=done)
    assert {answer.answer_key for answer in rest} == {answer.answer_key for answer in everything[1::2]}
    assert without_times(rest) == without_times(everything[1::2])
    assert ask(model, questions, compared, done={answer.answer_key for answer in everything}) == []


def test_the_model_is_left_as_it_was(questions: list[Question]) -> None:
    model = tiny_llava()

    def state() -> dict[str, Any]:
        return {
            name: (set(module.__dict__), list(module._forward_pre_hooks), list(module._forward_hooks))
            for name, module in model.named_modules()
        }

    ask(model, questions, [Unpruned()])  # the first call adds transformers' own hooks
    before = state()
    ask(model, questions, make_setups(["fopru", "downsample"], [0.25]))
    assert state() == before


def broken(folder: Path) -> Question:
    """Return a question about half of a JPEG file."""
    whole = (folder / "images" / "COCO_val2014_000000000042.jpg").read_bytes()
    path = folder / "broken.jpg"
    path.write_bytes(whole[: len(whole) // 2])
    return Echo(task="vqa", id="7", images=(path,), text="00")


def test_a_broken_image_stops_the_run(questions: list[Question], folder: Path) -> None:
    with pytest.raises(QuestionError, match=r"unpruned, .*: stopped at 7: .*broken\.jpg: .* --on-error record`"):
        ask(tiny_llava(), [questions[0], broken(folder)], [Unpruned()])


class Crash(tokenprune.ScoreStrategy):
    def score(self, tokens: VisualTokens) -> torch.Tensor:
        raise RuntimeError("out of luck")


def crash() -> Pruned:
    return Pruned(label="Crash", strategy=Crash(keep_ratio=0.5), keep_ratio=0.5)


def test_a_crash_stops_the_run(questions: list[Question]) -> None:
    model = tiny_llava()
    with pytest.raises(QuestionError, match=r"Crash, keep ratio 0\.5, .*stopped at 3 .*: out of luck \(.*runner\.py"):
        ask(model, questions, [Unpruned(), crash()])
    assert not model._forward_pre_hooks


def test_a_sentence_within_a_sentence(questions: list[Question]) -> None:
    with pytest.raises(QuestionError, match=r": Write layer=2\. Correct it and type the same again"):
        failed(questions[0], Unpruned(), tokenprune.SettingError("Write layer=2."), "stop")


def test_recorded_errors_are_no_wrong_answers(questions: list[Question], folder: Path) -> None:
    compared, asked = [Unpruned(), crash()], [*questions, broken(folder)]
    answers = {answer.answer_key: answer for answer in ask(tiny_llava(), asked, compared, on_error="record")}
    unpruned, crashed = aggregate.task_results(asked, compared, answers, dataset="a", model="b", identity=identity())
    assert (unpruned.n, unpruned.failed, unpruned.accuracy) == (3, 1, pytest.approx(2 / 3))
    assert unpruned.scores == {"val": [1, None], "test": [1], "": ["failed"]}
    assert (crashed.n, crashed.failed) == (0, 4)
    errors = [answer.error for answer in answers.values() if answer.error is not None]
    assert sum(error.startswith("DataError: ") and "broken.jpg: truncated" in error for error in errors) == 2
    assert errors.count("RuntimeError: out of luck") == 3
    with pytest.raises(ValueError, match="every vqa question failed under one of them"):
        compare(crashed, unpruned)


def test_one_bad_question_does_not_take_its_batch_along(
    questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Echo, "score", lambda self, answer: 1 / (2 - int(self.id)))
    answers = {answer.id: answer for answer in ask(tiny_llava(), questions, [Unpruned()], on_error="record")}
    assert [answers[id].score for id in "13"] == [1, -1]
    assert answers["2"].error == "ZeroDivisionError: division by zero"
    with pytest.raises(QuestionError, match=r"stopped at 2 \(.*division by zero"):
        ask(tiny_llava(), questions, [Unpruned()])


@pytest.mark.parametrize("n", [1, 3])
def test_a_model_that_computes_nan_answers_nothing(n: int, questions: list[Question]) -> None:
    """Many models do in float16, but `generate` would still choose a token."""
    model = tiny_llava()
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    with pytest.raises(QuestionError, match=r"NaN instead of logits, .* --dtype bfloat16 or float32"):
        ask(model, questions[:n], [Unpruned()])
    answers = ask(model, questions[:n], [Unpruned()], on_error="record")
    assert [answer.score for answer in answers] == [None] * n
    assert all("NaN" in str(answer.error) for answer in answers)


def test_a_question_that_cannot_be_encoded_for_a_setup(
    questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor accepts it at full size, and the other questions at any size."""

    def encode(model: Any, processor: Any, batch: list[DecodedQuestion], setup: Any) -> Any:
        if setup.label == "downsample" and "2" in [one.question.id for one in batch]:
            raise ValueError("too narrow")
        return batching.encode_batch(model, processor, batch, setup)

    monkeypatch.setattr("tokenprune.evals.run.runner.encode_batch", encode)
    setups = make_setups(["downsample"], [0.25])
    answers = {
        (answer.strategy, answer.id): answer.error for answer in ask(tiny_llava(), questions, setups, on_error="record")
    }
    assert {key for key, error in answers.items() if error is not None} == {("downsample", "2")}
    assert answers["downsample", "2"] == "ValueError: too narrow"
    with pytest.raises(QuestionError, match=r"downsample.*stopped at 2 \(.*too narrow"):
        ask(tiny_llava(), questions, setups)
