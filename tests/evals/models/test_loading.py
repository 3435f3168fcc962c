"""Models that are not there, and quantised ones, which transformers loads in fewer dtypes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import tiny_llava

from tokenprune.errors import DataError, SettingError
from tokenprune.evals.models import loading
from tokenprune.evals.models.loading import load_model


def test_no_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune.evals.models.loading.MODEL", tmp_path)
    with pytest.raises(DataError, match="write --model, or pip install -e a clone"):
        load_model(str(tmp_path))


def test_an_unknown_dtype_is_said_before_anything_is_loaded() -> None:
    with pytest.raises(SettingError, match=r"unknown dtype 'bf16'\. Did you mean 'bfloat16'\?"):
        load_model("no/such-model", "bf16")


@pytest.fixture
def quantised(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What loading finds: a model that is half in float16, and refuses `float()` as transformers' quantised ones do."""
    model = tiny_llava().half()
    model.is_quantized = True
    model.float = None
    monkeypatch.setattr(loading, "load_processor", lambda name: (model.config, None))
    monkeypatch.setattr(loading.AutoModelForImageTextToText, "from_pretrained", lambda *_, **options: model)
    return model


def test_a_quantised_model_keeps_its_dtype(quantised: Any) -> None:
    for dtype in ("auto", "float16"):
        assert load_model("x", dtype, "cpu")[0].dtype == torch.float16


def test_a_dtype_that_a_quantised_model_cannot_have(quantised: Any) -> None:
    with pytest.raises(SettingError, match=r"stay in float16 when it is loaded in float32\. Write --dtype float16\."):
        load_model("x", "float32", "cpu")
