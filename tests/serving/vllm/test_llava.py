"""LLaVA-1.5 in vLLM answers as in transformers with tokenprune."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import TOLERANCE, check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.models import save_llava
from helpers.served.reference import Request

pytestmark = [needs_vllm, pytest.mark.slow]

FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}
A, B, C = (1, 100, 100), (2, 150, 80), (3, 60, 90)
LONG = " ".join(f"w{i % 70}" for i in range(40))
REQUESTS = (
    Request("w1 w2 <image> w3 w4", (A,)),
    Request("w1 w2 <image> w3 w4", (B,)),
    Request("<image> w5 <image> w6 w7", (A, C)),
    Request("<image> w5 <image> w6 w7", (C, A)),
    Request(f"{LONG} <image> w8", (C,)),
    Request("w9 w10 w11"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    save_llava(folder)
    return folder


@pytest.fixture(scope="module")
def fopru(model: Path) -> Iterator[Any]:
    with engine(model, "TokenPruneLlava", FOPRU) as llm:
        yield llm


def test_one_by_one_and_together(model: Path, fopru: Any) -> None:
    answers = expected(model, FOPRU, REQUESTS)
    for request, answer in zip(REQUESTS, answers, strict=True):
        (output,) = served(fopru, [request])
        check_equal(output, answer)
        dropped = 27 * len(request.images)
        assert len(output.prompt_token_ids) == answer.n_prompt - dropped
    for output, answer in zip(served(fopru, REQUESTS), answers, strict=True):
        check_equal(output, answer)


def test_other_position_ids_give_another_answer(model: Path, fopru: Any) -> None:
    """Of those, a request without images has none."""
    for output, answer in zip(served(fopru, REQUESTS), expected(model, FOPRU, REQUESTS, "compact"), strict=True):
        assert (difference(output, answer) > 100 * TOLERANCE) == ("<image>" in output.prompt)
