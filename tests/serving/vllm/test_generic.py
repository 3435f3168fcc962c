"""The bundled model, whose DINOv2 tower vLLM does not have, on vLLM's Transformers backend."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.served.engine import TOLERANCE, check_equal, difference, expected, needs_vllm, served_apart
from helpers.served.reference import Request

MODEL = Path(__file__).parents[3] / "evals" / "bundled" / "model"
pytestmark = [needs_vllm, pytest.mark.slow]
FOPRU = {"strategy": "fopru", "keep_ratio": 0.25, "layer": -2}
A, B = (1, 224, 224), (2, 320, 240)
REQUESTS = (
    Request("<image> where is the dog?", (A,)),
    Request("<image> what is this?", (B,)),
    Request("<image> what is behind this?", (B,)),  # the image is in the prefix cache
    Request("<image> and <image> what is this?", (B, A)),
    Request("<image> what is this?", (B,), keep_ratio=0.5),
    Request("what is this?"),
)


def test_bundled_model() -> None:
    answers = expected(MODEL, FOPRU, REQUESTS)
    compact = expected(MODEL, FOPRU, REQUESTS[:2], "compact")
    batches = [*([request] for request in REQUESTS), REQUESTS]
    *alone, together = served_apart(MODEL, "TokenPruneTransformers", FOPRU, batches, max_model_len=1024)
    for request, (output,), answer in zip(REQUESTS, alone, answers, strict=True):
        check_equal(output, answer)
        kept = sum(map(len, answer.kept))
        assert len(output.prompt_token_ids) == answer.n_prompt - 256 * len(request.images) + kept
    for output, answer in zip(together, answers, strict=True):
        check_equal(output, answer)
    for (output,), answer in zip(alone[:2], compact, strict=True):
        assert difference(output, answer) > 100 * TOLERANCE
