"""Isaac's two formats of config.json, and its position IDs: the largest may be a row or a column of an image."""

# pyright: reportMissingImports=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.served.converted.isaac import save_isaac
from helpers.served.engine import check_equal, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU
from helpers.served.reference import Request

from tokenprune.serving.vllm.plugin import register

pytestmark = [needs_vllm, pytest.mark.slow]
NAME = "TokenPruneIsaac"


@pytest.mark.parametrize("nested", [False, True])
def test_answers_begin_after_the_largest_position_id(nested: bool, tmp_path: Path) -> None:
    """These images have up to seven rows or columns of visual tokens, after up to two other tokens."""
    save_isaac(tmp_path, nested=nested)
    requests = [
        Request("w1 w2 <image> w3", ((1, 224, 112),)),
        Request("<image> w3 <image> w4", ((2, 224, 112), (3, 112, 224))),
    ]
    answers = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, NAME, FOPRU, max_num_batched_tokens=16) as llm:
        for output, answer in zip(served(llm, requests), answers, strict=True):
            check_equal(output, answer)


def test_position_ids_have_three_components_in_any_config(tmp_path: Path) -> None:
    """vLLM's own model counts tokens instead unless config.json names the sections, which are in the model's code."""
    from vllm.engine.arg_utils import EngineArgs

    register()
    save_isaac(tmp_path)

    def seen(**overrides: Any) -> tuple[bool, int]:
        model = EngineArgs(str(tmp_path), max_model_len=256, hf_overrides=overrides).create_engine_config().model_config
        return model.uses_mrope, model.mrope_num_dims

    assert seen() == (False, 0)
    assert seen(architectures=[NAME], tokenprune=FOPRU) == (True, 3)
