"""InternVL's other tower, InternViT-6B, whose layers normalise differently."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.served.converted.internvl import CHAT_IMAGE, CHAT_OPTIONS, save_internvl_chat
from helpers.served.engine import check_equal, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU
from helpers.served.reference import Request

pytestmark = [needs_vllm, pytest.mark.slow]


def test_the_large_tower(tmp_path: Path) -> None:
    """A strategy reads queries and keys after their norms."""
    save_internvl_chat(tmp_path, large=True)
    requests = [Request(f"w1 {CHAT_IMAGE} w2", ((1, 140, 112),)), Request(f"w1 {CHAT_IMAGE} w2", ((2, 200, 90),))]
    answers = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, "TokenPruneInternVLChat", FOPRU, **CHAT_OPTIONS) as llm:
        for output, answer in zip(served(llm, requests), answers, strict=True):
            check_equal(output, answer)
