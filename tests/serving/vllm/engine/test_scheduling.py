"""Steps that end within an image of merged tokens, and a compiled language model. The rest is in test_families.py."""

from pathlib import Path

import pytest
from helpers.served.engine import check_answers, check_equal, check_served, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU, words
from helpers.served.marks import QWEN_IMAGE
from helpers.served.reference import Request
from helpers.served.stored import save

pytestmark = [needs_vllm, pytest.mark.slow]


def test_more_tokens_than_a_step_may_have(tmp_path: Path) -> None:
    save("llava-clip", tmp_path)
    requests = [Request("w1 <image> w2", ((1, 100, 100),), keep_ratio=1.0)]
    (answer,) = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, "TokenPruneLlava", FOPRU, max_num_batched_tokens=16, max_num_seqs=8) as llm:
        (output,) = served(llm, requests)
    assert len(output.prompt_token_ids) > 2 * 16
    check_equal(output, answer)


@pytest.mark.parametrize("position_ids", ["original", "compact"])
def test_qwen_in_chunks_with_merging(tmp_path: Path, position_ids: str) -> None:
    """Three-dimensional position IDs, windows in the tower, merged tokens, and steps of 24 tokens, all together."""
    save("qwen2_5_vl", tmp_path)
    settings = {"strategy": "visionzip", "keep_ratio": 0.25, "contextual": 0.4, "position_ids": position_ids}
    i = QWEN_IMAGE
    requests = [
        Request(f"w1 {i} w2 {i} w3", ((1, 196, 140), (2, 90, 180))),
        Request(f"{words(20)} {i} w2", ((3, 140, 196),)),
        Request(f"w1 {i} w2", ((3, 140, 196),), keep_ratio=1.0),
        Request("w5 w6"),
    ]
    options = {"max_num_batched_tokens": 24, "max_num_seqs": 8, "enable_prefix_caching": position_ids == "original"}
    check_served(tmp_path, "TokenPruneQwen2_5_VL", settings, requests, **options)


def test_a_compiled_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads its position IDs at a fixed address."""
    save("llava-clip", tmp_path)
    a, b, c = ((seed, 100, 100) for seed in (1, 2, 3))
    requests = [Request("w1 <image> w2 <image> w3", (a, b)), Request("w1 <image> w2", (c,))]
    answers = expected(tmp_path, FOPRU, requests)
    # Kernels run in Triton's interpreter here. It cannot run the sampling kernel, which vLLM tries when it starts.
    monkeypatch.setattr("vllm.v1.sample.ops.topk_topp_sampler.HAS_TRITON", False)
    with engine(tmp_path, "TokenPruneLlava", FOPRU, enforce_eager=False) as llm:
        check_answers(llm, requests, answers)
