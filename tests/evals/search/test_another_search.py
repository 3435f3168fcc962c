"""A search resumes only if it is the same search."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.files.evals import tiny_processor
from helpers.files.search import BASE, deep_llava, scenes, searched

from tokenprune import SettingError
from tokenprune.evals.search.optimize import Names, optimize

OWN = """
from dataclasses import dataclass
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt

@dataclass(frozen=True)
class Mine(VFlowOpt):
    def select(self, tokens):
        return super().select(tokens)
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base": replace(BASE, keep_ratio=0.2)}, "keep_ratio=0.3 and not keep_ratio=0.2"),
        ({"seed": 5}, "seed=0 and not seed=5"),
        ({"state": "mean_pooled"}, "state='last_token' and not state='mean_pooled'"),
        ({"names": Names(split="test")}, "split=None and not split='test'"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    questions, output = scenes(tmp_path / "scenes"), tmp_path / "settings.json"
    searched(questions, output, trials=1)
    before = output.read_text()
    with pytest.raises(SettingError, match=rf"settings\.journal: holds another search, with {said}. Name another"):
        searched(questions, output, **options)
    assert output.read_text() == before


def test_other_samples_and_weights_are_refused(tmp_path: Path) -> None:
    questions, output = scenes(tmp_path / "scenes"), tmp_path / "settings.json"
    searched(questions, output, trials=1)
    with pytest.raises(SettingError, match=r"ids=\['rec-0', 'rec-10', .*other questions or images"):
        searched(questions[1:], output)
    (image,), (other,) = questions[0].images, questions[1].images
    assert isinstance(image, Path)
    content = image.read_bytes()
    image.write_bytes(other.read_bytes())
    with pytest.raises(SettingError, match=r"search, with other questions or images\. Name"):
        searched(questions, output)
    image.write_bytes(content)
    weight = deep_llava().model.language_model.norm.weight
    with torch.no_grad():
        weight[0] += 1
        try:
            with pytest.raises(SettingError, match=r"search, with other weights of the model\. Name"):
                searched(questions, output)
        finally:
            weight[0] -= 1


def test_another_view_of_the_images_is_refused(tmp_path: Path) -> None:
    """The earlier trials were measured on images as the processor then made them."""
    questions, output = scenes(tmp_path / "scenes"), tmp_path / "settings.json"
    searched(questions, output, trials=1)
    other = tiny_processor(image_mean=[0.0, 0.0, 0.0])
    with pytest.raises(SettingError, match=r"another search, with other settings of its processor\. Name"):
        optimize(deep_llava(), other, questions, output, base=BASE, trials=2)


def test_other_code_of_an_own_strategy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions, output = scenes(tmp_path / "scenes"), tmp_path / "settings.json"
    monkeypatch.syspath_prepend(tmp_path)

    def search(code: str, trials: int) -> None:
        sys.modules.pop("mine", None)
        (tmp_path / "mine.py").write_text(code)
        importlib.invalidate_caches()
        base = importlib.import_module("mine").Mine(keep_ratio=0.3)
        searched(questions, output, trials=trials, base=base, strategy="mine:Mine")

    search(OWN, 1)
    search(f"SEED = 0\n{OWN}", 2)
    with pytest.raises(SettingError, match=r"another search, with other code of the strategy\. Name"):
        search(OWN.replace("super().select(tokens)", "super().select(tokens=tokens)"), 3)
