"""`from tokenprune.evals import evaluate`: evaluation as a function."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.asking import without_times
from helpers.files.evals import brief, saved, tiny_processor, write_vqav2
from helpers.tiny import tiny_llava

import tokenprune
from tokenprune.evals import evaluate
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.tokens import VisualTokens

LIGHT = """
import sys
import tokenprune.evals
heavy = {"torch", "transformers", "typer", "rich", "scipy", "pyarrow", "PIL"} & set(sys.modules)
assert not heavy, heavy
assert "evaluate" in tokenprune.evals.__all__
"""


def test_a_patched_model_does_not_pass_for_the_unpruned_one(tmp_path: Path) -> None:
    """In a `with` block, its patch would be restored whenever a setup's own is removed."""
    write_vqav2(tmp_path / "scenes", 1)
    model = tiny_llava()
    where: dict[str, Any] = {"output": tmp_path / "run", "data": tmp_path / "scenes"}
    with tokenprune.patch(model, tokenprune.Grid(keep_ratio=0.25)):
        for measure in (evaluate, tokenprune.tune):
            with pytest.raises(tokenprune.SettingError, match=r"Grid\(keep_ratio=0\.25\).*unpatch\(model"):
                measure((model, tiny_processor()), **where)
    assert not (tmp_path / "run").exists()
    (row,) = evaluate((model, tiny_processor()), **where, strategies=[], baselines=["unpruned"])
    assert row.n == 1


def test_a_model_in_training_answers_without_dropout_and_goes_on_training(tmp_path: Path) -> None:
    write_vqav2(tmp_path / "scenes")
    model = tiny_llava()
    for layer in model.model.language_model.layers:
        layer.self_attn.attention_dropout = 0.9
    where: dict[str, Any] = {"data": tmp_path / "scenes", "strategies": [], "baselines": ["unpruned"]}
    for name in ("evaluated", "trained"):
        model.train(name == "trained")
        model.model.vision_tower.eval()  # like frozen parts
        evaluate((model, tiny_processor()), output=tmp_path / name, **where)
    answers = [without_times(RunFolder(tmp_path / name).answers().values()) for name in ("evaluated", "trained")]
    assert answers[0] == answers[1]
    assert model.training
    assert not model.model.vision_tower.training


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model, _: model.set_attn_implementation("eager"), r"model\.kernels\.\w+\.attention='sdpa', .*='eager'"),
        (
            lambda model, _: setattr(model.generation_config, "repetition_penalty", 1.5),
            r"with model\.generation\.repetition_penalty=None and not .*repetition_penalty=1\.5\. Name",
        ),
        (lambda model, _: setattr(model.config, "vision_feature_layer", -1), "with another config of the model"),
        (
            lambda _, processor: setattr(processor.image_processor, "image_mean", [0.0] * 3),
            "other settings of its",
        ),
        (lambda _, processor: setattr(processor, "chat_template", "please"), "with other settings of its processor"),
    ],
)
def test_answers_of_a_model_that_is_set_otherwise_are_not_mixed(
    tmp_path: Path, change: Callable[[Any, Any], object], said: str
) -> None:
    write_vqav2(tmp_path / "scenes", 1)
    where: dict[str, Any] = {"output": tmp_path / "run", "data": tmp_path / "scenes", "baselines": ["unpruned"]}
    where["strategies"] = []
    evaluate(saved(tiny_llava(), tmp_path / "model"), **where)
    model, processor = brief(tiny_llava()), tiny_processor()
    model.generation_config.temperature = 0.5  # greedy answers do not depend on it
    model.generation_config.num_beams = 3
    model.config.name_or_path = "elsewhere"
    evaluate((model, processor), **where)
    change(model, processor)
    with pytest.raises(tokenprune.SettingError, match=rf"run\.json: holds another run, .*{said}"):
        evaluate((model, processor), **where)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": tiny_llava()}, "model: found LlavaFor.*: \\(model, processor\\)"),
        ({"strategies": "fopru"}, "strategies: found 'fopru', which is not a list; write strategies="),
        ({"strategies": [tokenprune.FoPru]}, "FoPru is a class; write its name, or an object"),
        ({"strategies": [7]}, "strategies: found int"),
        ({"strategies": [tokenprune.FoPru(keep=64)]}, r"FoPru\(keep=64\): keep would have no effect"),
        ({"tasks": "pope"}, "tasks: found 'pope', which is not a list"),
        ({"keep_ratios": 0.25}, "keep_ratios: found 0.25, which is not a list"),
        ({"keep_ratios": iter([0.25])}, "keep_ratios: found .*iterator.*, which is not a list"),
        ({"limit": 0}, "limit=0 is not a whole number above 0"),
        ({"image_size": 448}, "image_size: found 448, which is not a list"),
        ({"batch_tokens": 0}, "batch_tokens=0 is not"),
        ({"on_error": "stpo"}, "unknown on_error 'stpo'. Did you mean 'stop'"),
        ({"engine_options": {"seed": 0}}, r"engine_options \(--engine-options\) are for an engine"),
    ],
)
def test_wrong_arguments(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(tokenprune.SettingError, match=message):
        evaluate(**{"model": (tiny_llava(), tiny_processor()), "output": tmp_path / "run", "data": tmp_path} | wrong)
    assert not (tmp_path / "run").exists()


def test_paths_name_a_model_and_a_settings_file(tmp_path: Path) -> None:
    write_vqav2(tmp_path / "scenes", 1)
    saved(tiny_llava(), tmp_path / "model")
    (tmp_path / "found.json").write_text(json.dumps({"strategy": "fopru", "settings": {"keep_ratio": 0.25}}))
    where: dict[str, Any] = {"output": tmp_path / "run", "data": tmp_path / "scenes", "baselines": []}
    found: Any = {"strategies": [tmp_path / "found.json"], "keep_ratios": [0.25], "position_ids": ["original"]}
    (row,) = evaluate(tmp_path / "model", **where, **found)
    assert row.strategy == "FoPru found"


@pytest.mark.usefixtures("unchecked")
def test_numpy_numbers_are_accepted(tmp_path: Path) -> None:
    write_vqav2(tmp_path / "scenes")
    where: dict[str, Any] = {"output": tmp_path / "run", "data": tmp_path / "scenes", "baselines": []}
    numbers: Any = {"limit": np.int64(1), "batch_tokens": np.int32(600), "keep_ratios": np.array([0.25])}
    (row,) = evaluate(
        (tiny_llava(), tiny_processor()), **where, strategies=["grid"], position_ids=["original"], **numbers
    )
    assert row.n == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["identity"]["batch_tokens"] == 600


def test_settings_that_cannot_be_stored(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Weighted(tokenprune.ScoreStrategy):
        weights: torch.Tensor | None = None

        def score(self, tokens: VisualTokens) -> torch.Tensor:
            return tokens.features.norm(dim=-1)

    write_vqav2(tmp_path / "scenes")
    strategy = Weighted(keep_ratio=0.5, weights=torch.ones(2))
    where: dict[str, Any] = {"output": tmp_path / "run", "data": tmp_path / "scenes"}
    with pytest.raises(tokenprune.SettingError, match=r"weights is a Tensor, which a run cannot store\. Make"):
        evaluate((tiny_llava(), tiny_processor()), strategies=[strategy], keep_ratios=[0.5], **where)
    assert not (tmp_path / "run").exists()


def test_nothing_to_measure(tmp_path: Path) -> None:
    write_vqav2(tmp_path / "scenes")
    where: dict[str, Any] = {"output": tmp_path / "run", "data": tmp_path / "scenes"}
    with pytest.raises(tokenprune.SettingError, match="nothing to measure"):
        evaluate((tiny_llava(), tiny_processor()), strategies=[], baselines=[], **where)


def test_importing_the_evals_loads_none_of_their_libraries() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)
