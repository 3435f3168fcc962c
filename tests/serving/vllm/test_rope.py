"""Rotary embeddings whose tables vLLM does not lengthen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.marked import MISTRAL_IMAGE, save_mistral3
from helpers.served.reference import Request

from tokenprune.errors import UnsupportedError

pytestmark = [needs_vllm, pytest.mark.slow]
#: As in Ministral 3, whose table ends at 64 * 16.
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 16.0, "original_max_position_embeddings": 64}
FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}


def test_yarn(tmp_path: Path) -> None:
    """Within the table, position IDs far beyond the original length are those of transformers; past it, none are."""
    save_mistral3(tmp_path, rope_parameters=YARN)
    requests = [Request(f"w1 {MISTRAL_IMAGE} w2 {MISTRAL_IMAGE} w3", ((1, 196, 196), (2, 196, 160)))]
    answers = expected(tmp_path, FOPRU, requests)
    options: dict[str, Any] = {"max_model_len": 256}
    with engine(tmp_path, "TokenPruneMistral3", FOPRU, **options) as llm:
        (output,) = served(llm, requests)
    check_equal(output, answers[0])
    assert difference(output, expected(tmp_path, FOPRU, requests, "compact")[0]) > 1e-2
    with (
        pytest.raises(UnsupportedError, match=r"ends at 1024 position IDs, and original ones may run to 1028\. Lower"),
        engine(tmp_path, "TokenPruneMistral3", FOPRU, max_model_len=257),
    ):
        pass
