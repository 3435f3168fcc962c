"""The distance between first tokens: by hand, against the model's own logits, and in a complete tuning."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers.commands import command
from helpers.files.evals import tiny_processor
from helpers.files.search import deep_llava, scenes, write_scenes
from helpers.tiny import tiny_llava

from tokenprune import FoPru, SettingError
from tokenprune.evals.run.plan import Part
from tokenprune.evals.run.runner import QuestionError
from tokenprune.evals.run.setups import Pruned, Setup
from tokenprune.evals.storage.answers import AnswerKey
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tune.first_token import FirstTokens, overlap
from tokenprune.evals.tune.scoring import UNPRUNED, measure_of
from tokenprune.evals.tune.tune import tune
from tokenprune.prompts import encode_chat

FEW = Pruned(label="few", keep_ratio=0.2, strategy=FoPru(keep_ratio=0.2))
ALL = Pruned(label="all", keep_ratio=1.0, strategy=FoPru(keep_ratio=1.0))


def test_overlap_by_hand() -> None:
    one = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0]])
    other = torch.tensor([[0.5, 0.5, 0.0], [0.3, 0.3, 0.4], [0.0, 0.5, 0.5]])
    assert overlap(one, other).tolist() == pytest.approx([0.7, 1.0, 0.0])
    assert overlap(one, one).tolist() == [1.0, 1.0, 1.0]


def distribution(question: Question, setup: Setup) -> torch.Tensor:
    """Return the distribution of the first token, from the model's forward on the question alone."""
    inputs = encode_chat(tiny_processor(), [question.open_images()], [question.text])
    with setup.patched(deep_llava()), torch.inference_mode():
        return deep_llava()(**inputs).logits[:, -1].softmax(-1)


def test_scores_are_the_overlap_with_the_unpruned_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches, whichever setup comes first. If nothing is pruned, the overlap is exactly 1."""
    questions = list(scenes(tmp_path, 5))
    setups = [FEW, UNPRUNED, ALL]
    missing = {AnswerKey.of(one, setup.key) for one in questions for setup in setups}
    monkeypatch.setattr(deep_llava().generation_config, "num_beams", 2)  # beams are not used
    runner = FirstTokens(deep_llava(), tiny_processor(), setups, batch_tokens=200)
    asked = list(runner.ask(Part(questions, missing, first_id="")))
    assert len(asked) > len(setups)  # several batches
    found = {answer.answer_key: answer for answers in asked for answer in answers}
    assert found.keys() == missing
    for question in questions:
        few, unpruned, everything = (found[AnswerKey.of(question, one.key)] for one in setups)
        expected = overlap(distribution(question, FEW), distribution(question, UNPRUNED))
        assert few.score == pytest.approx(float(expected), abs=1e-6)
        assert cast(float, few.score) < 1
        assert unpruned.score == everything.score == 1
        assert few.n_kept < few.n_visual == everything.n_kept == unpruned.n_kept
        token = int(distribution(question, UNPRUNED).argmax())
        assert unpruned.text == tiny_processor().decode([token]).strip()


def test_a_model_that_computes_nan_is_not_compared(tmp_path: Path) -> None:
    """Many models do in float16, and the overlap would be NaN too."""
    model = tiny_llava()
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    questions = list(scenes(tmp_path, 1))
    missing = {AnswerKey.of(one, UNPRUNED.key) for one in questions}
    runner = FirstTokens(model, tiny_processor(), [UNPRUNED], batch_tokens=200)
    with pytest.raises(QuestionError, match="NaN instead of logits"):
        list(runner.ask(Part(questions, missing, first_id="")))


def test_a_tuning_by_first_tokens(tmp_path: Path) -> None:
    """It bounds the distance, names its unit, and generates no answers: those on disk are single tokens."""
    write_scenes(tmp_path / "scenes", 39)
    model: Any = deep_llava(), tiny_processor()
    options: dict[str, Any] = {"generations": 1, "size": 4, "strategies": ("fopru",), "max_loss": 60.0}
    output = tmp_path / "tuned"
    found = tune(model, data=tmp_path / "scenes", output=output, labels=False, compare="first-token", **options)
    assert found.passed
    answers = RunFolder(output / "answers").answers().values()
    assert all(len(answer.text.split()) <= 1 for answer in answers)
    assert {answer.score for answer in answers if answer.strategy == "unpruned"} == {1.0}
    fresh = found.tested[-1]
    assert 0 < fresh.loss.points < fresh.loss.upper <= 60
    lost = [1 - cast(float, one.score) for one in answers if one.key == fresh.tried.setup.key]
    assert 100 * min(lost) <= fresh.loss.points <= 100 * max(lost)
    page = (output / "tuned.md").read_text()
    assert "points of overlap of the first token's distribution with the unpruned model's: it lost" in page
    assert "A point is a total variation distance of 0.01" in page
    assert json.loads((output / "settings.json").read_text())["search"]["measure"] == "overlap"
    with pytest.raises(SettingError, match=r"holds another search, with measure='overlap' and not measure='agreement'"):
        tune(model, data=tmp_path / "scenes", output=output, labels=False, **options)


def test_what_is_measured() -> None:
    assert measure_of(True, None) == "accuracy"
    assert measure_of(False, None) == measure_of(False, "answers") == "agreement"
    assert measure_of(False, "first-token") == "overlap"
    with pytest.raises(SettingError, match=r"are not read\. Add labels=False \(--no-labels\)"):
        measure_of(True, "answers")


def test_the_command_refuses_a_comparison_beside_labels(tmp_path: Path) -> None:
    said = command("tune", "--model", "no-model", "--data", tmp_path, "--compare", "first-token")
    assert "compare='first-token' applies only if right answers are not read" in said
