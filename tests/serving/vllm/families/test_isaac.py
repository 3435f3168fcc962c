"""Isaac's two formats of config.json, and its position IDs: the largest may be a row or a column of an image."""

# pyright: reportMissingImports=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import needs_vllm
from helpers.served.family import FOPRU
from helpers.served.stored import save

from tokenprune.serving.vllm.plugin import register

pytestmark = [needs_vllm, pytest.mark.slow]
NAME = "TokenPruneIsaac"


def test_position_ids_have_three_components_in_any_config(tmp_path: Path) -> None:
    """vLLM's own model counts tokens instead unless config.json names the sections, which are in the model's code."""
    from vllm.engine.arg_utils import EngineArgs

    register()
    save("isaac", tmp_path)

    def seen(**overrides: Any) -> tuple[bool, int]:
        model = EngineArgs(str(tmp_path), max_model_len=256, hf_overrides=overrides).create_engine_config().model_config
        return model.uses_mrope, model.mrope_num_dims

    assert seen() == (False, 0)
    assert seen(architectures=[NAME], tokenprune=FOPRU) == (True, 3)
