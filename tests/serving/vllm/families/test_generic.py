"""The bundled model, whose DINOv2 tower vLLM does not have, on vLLM's Transformers backend."""

from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import TOLERANCE, Apart, check_equal, difference, expected, needs_vllm, served_apart
from helpers.served.reference import Request

MODEL = Path(__file__).parents[4] / "evals" / "bundled" / "model"
pytestmark = [needs_vllm, pytest.mark.slow]
FOPRU = {"strategy": "fopru", "keep_ratio": 0.25, "layer": -2}
N_VISUAL, BLOCK = 256, 32
A, B, C = (1, 224, 224), (2, 320, 240), (3, 224, 224)
#: A text longer than a block.
LONG = "the red and the blue and the green cup is to the left of " * 6
REQUESTS = (
    Request("<image> where is the dog?", (A,)),
    Request("see <image> what is this?", (B,)),
    Request("see <image> what is behind this?", (B,)),  # the cached prefix ends within the image
    Request("<image> and <image> what is this?", (B, A)),
    Request("<image> what is this?", (B,), keep_ratio=0.5),
    Request("what is this?"),
    Request(f"{LONG} <image> what is this?", (A,)),
    Request(f"{LONG} <image> what is this?", (B,)),  # it ends before the image
    Request(f"<image> {LONG}", (C,)),
    Request(f"<image> {LONG} what is this?", (C,)),  # it ends after the image
)
BEFORE, WITHIN, AFTER = 7, 2, 9
#: Steps that end within images, and a KV cache that eight requests together exceed.
OPTIONS: dict[str, Any] = {"max_num_batched_tokens": 48, "max_num_seqs": 8, "num_gpu_blocks_override": 33}


def answered(settings: dict[str, Any]) -> Apart:
    """Run the requests one by one, then together, then eight longer ones."""
    batches = [*([request] for request in REQUESTS), REQUESTS, longer()]
    return served_apart(MODEL, "TokenPruneTransformers", settings, batches, max_model_len=1024, **OPTIONS)


def longer() -> list[Request]:
    return [Request(f"<image> {LONG} where is it?", ((10 + n, 224, 224),), n_new=40) for n in range(8)]


@pytest.mark.parametrize("position_ids", [pytest.param("original", marks=pytest.mark.smoke), "compact"])
def test_bundled_model(position_ids: Any) -> None:
    settings = {**FOPRU, "position_ids": position_ids}
    answers = expected(MODEL, settings, REQUESTS)
    found = answered(settings)
    *alone, together, preempted = found.outputs
    for request, (output,), answer in zip(REQUESTS, alone, answers, strict=True):
        check_equal(output, answer)
        kept = sum(map(len, answer.kept))
        assert len(output.prompt_token_ids) == answer.n_prompt - N_VISUAL * len(request.images) + kept
    for output, answer in zip(together, answers, strict=True):
        check_equal(output, answer)
    assert found.n_preemptions > 0
    for output, answer in zip(preempted, expected(MODEL, settings, longer()), strict=True):
        check_equal(output, answer, 2 * TOLERANCE)  # over 40 tokens, 1.1e-4 was measured

    cached = [output.num_cached_tokens for (output,) in alone]
    starts = [visual_start(output) for (output,) in alone]
    assert BLOCK <= cached[BEFORE] <= starts[BEFORE]
    assert starts[WITHIN] < cached[WITHIN] < starts[WITHIN] + 64
    assert cached[AFTER] >= starts[AFTER] + 64

    other = "compact" if position_ids == "original" else "original"
    for (output,), answer in zip(alone[:2], expected(MODEL, FOPRU, REQUESTS[:2], other), strict=True):
        assert difference(output, answer) > 100 * TOLERANCE


def visual_start(output: Any) -> int:
    """Return where the first run of 64 equal tokens starts in a prompt; 0 if there is none."""
    ids = output.prompt_token_ids
    return next((n for n in range(len(ids) - 63) if len(set(ids[n : n + 64])) == 1), 0)
