"""Exports are refused: a recorded graph would always keep the example's visual tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.tiny import prompt

import tokenprune
from tokenprune import FoPru, UnsupportedError


def export(model: Any, inputs: dict[str, Any]) -> Any:
    return torch.export.export(model, (), {**inputs, "use_cache": False}, strict=False)


def trace(model: Any, inputs: dict[str, Any]) -> Any:
    return torch.jit.trace(model, example_kwarg_inputs=inputs, strict=False, check_trace=False)


@pytest.mark.filterwarnings("ignore")  # torch's deprecation warnings
@pytest.mark.parametrize("record", [export, trace])
@pytest.mark.parametrize("part", ["", "model"])
def test_a_patched_model_is_not_recorded(llava: Any, record: Callable[..., Any], part: str) -> None:
    """Nor is its base model. Afterwards, the patch works as before."""
    inputs = prompt([1])
    with torch.no_grad(), tokenprune.patch(llava, FoPru(keep=4)) as handle:
        with pytest.raises(UnsupportedError, match=r"neither exported nor traced.* Remove the patch first"):
            record(llava.get_submodule(part), inputs)
        llava(**inputs)
    assert handle.report.n_kept == 4
