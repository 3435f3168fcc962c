"""Quantised weights: pruning equals masking in the same quantised model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.contract.answers import assert_answers
from helpers.tiny import tiny_llava
from transformers import LlavaForConditionalGeneration, QuantoConfig


@pytest.mark.parametrize("per_row", [[1], [1, 2]], ids=str)
@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.usefixtures("quanto_in_python")
def test_quanto(weights: str, per_row: list[int], tmp_path: Path) -> None:
    plain = tiny_llava()
    plain.save_pretrained(tmp_path)
    model: Any = LlavaForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=QuantoConfig(weights=weights), device_map={"": "cpu"}
    ).eval()
    model.generation_config = plain.generation_config
    assert any(type(module).__name__ == "QLinear" for module in model.model.language_model.modules())
    assert_answers(model, model, per_row)
