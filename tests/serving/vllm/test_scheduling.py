"""However vLLM cuts, caches, preempts and restarts requests, their answers stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.models import save_llava, save_qwen
from helpers.served.reference import Request

pytestmark = [needs_vllm, pytest.mark.slow]
FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}
BLOCK = 32


def words(n: int, first: int = 0) -> str:
    return " ".join(f"w{(first + i) % 70}" for i in range(n))


def image(seed: int) -> tuple[int, int, int]:
    return seed, 100, 100


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    save_llava(folder)
    return folder


@pytest.fixture(scope="module")
def chunked(llava: Path) -> Iterator[Any]:
    """Steps of 16 tokens. An image has 9, so many steps end within one."""
    with engine(llava, "TokenPruneLlava", FOPRU, max_num_batched_tokens=16, max_num_seqs=8) as llm:
        yield llm


def metric(llm: Any, name: str) -> float:
    return sum(one.value for one in llm.get_metrics() if one.name == f"vllm:{name}")


def test_steps_that_end_within_an_image(llava: Path, chunked: Any) -> None:
    requests = [Request(f"{words(n)} <image> w3 <image> w4", (image(n), image(n + 1))) for n in range(7, 16)]
    requests.append(Request("w1 <image> w2", (image(1),), keep_ratio=1.0))  # more tokens than a step may have
    answers = expected(llava, FOPRU, requests)
    for request, answer in zip(requests, answers, strict=True):
        (output,) = served(chunked, [request])
        check_equal(output, answer)
    chunked.reset_prefix_cache()
    for output, answer in zip(served(chunked, requests), answers, strict=True):
        check_equal(output, answer)


@pytest.mark.parametrize(
    ("before", "where"), [(BLOCK, "before"), (BLOCK - 4, "within"), (BLOCK - 9, "at the end of"), (2, "after")]
)
def test_prefix_hits(llava: Path, chunked: Any, before: int, where: str) -> None:
    """The first block ends before the image, within it, with it, or after it."""
    same, other = image(100 + before), image(200 + before)
    start = f"{words(before, before)} <image> {words(30)}"
    requests = [
        Request(f"{start} w1", (same,)),
        Request(f"{start} w2", (same,)),  # hits
        Request(f"{start} w2", (other,)),  # hits at most what is before the image
        Request(f"{start} w2 <image> w3", (same, other)),
    ]
    cached = []
    for request, answer in zip(requests, expected(llava, FOPRU, requests), strict=True):
        (output,) = served(chunked, [request])
        check_equal(output, answer)
        cached.append(output.num_cached_tokens)
    first, again, another, longer = cached
    assert first == 0
    assert again >= BLOCK
    assert longer >= BLOCK
    assert another == (BLOCK if where == "before" else 0)


def test_preemption(llava: Path) -> None:
    """Requests that outgrow the KV cache together are preempted, and start again from their own position IDs."""
    requests = [Request(f"{words(20 + i)} <image> {words(8)}", (image(i),), n_new=60) for i in range(6)]
    options = {"num_gpu_blocks_override": 14, "max_num_batched_tokens": 48, "max_num_seqs": 8}
    with engine(llava, "TokenPruneLlava", FOPRU, max_model_len=128, **options) as llm:
        outputs = served(llm, requests)
        assert metric(llm, "num_preemptions") > 0
    for output, answer in zip(outputs, expected(llava, FOPRU, requests), strict=True):
        check_equal(output, answer)


def test_position_ids_beyond_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of two images run to about 100, and the model has a table of 64."""
    save_llava(tmp_path, max_position_embeddings=64)
    requests = [Request(f"{words(9)} <image> w1 <image> {words(9)}", (image(1), image(2)), n_new=12)]
    (answer,) = expected(tmp_path, FOPRU, requests)
    assert answer.n_prompt > 64
    with engine(tmp_path, "TokenPruneLlava", FOPRU, max_model_len=64) as llm:
        (output,) = served(llm, requests)
        check_equal(output, answer)
    monkeypatch.setattr("tokenprune.serving.vllm.core.lengthen", lambda *_: None)
    with engine(tmp_path, "TokenPruneLlava", FOPRU, max_model_len=64) as llm:
        (output,) = served(llm, requests)
        assert not difference(output, answer) < 1e-2


@pytest.mark.parametrize("position_ids", ["original", "compact"])
def test_qwen_in_chunks_with_merging(tmp_path: Path, position_ids: str) -> None:
    """Three-dimensional position IDs, windows in the tower, merged tokens, and steps of 24 tokens, all at once."""
    save_qwen(tmp_path, "qwen2_5_vl")
    settings = {"strategy": "visionzip", "keep_ratio": 0.25, "contextual": 0.4, "position_ids": position_ids}
    i = "<|vision_start|> <|image_pad|> <|vision_end|>"
    requests = [
        Request(f"w1 {i} w2 {i} w3", ((1, 196, 140), (2, 90, 180))),
        Request(f"{words(20)} {i} w2", ((3, 140, 196),)),
        Request(f"w1 {i} w2", ((3, 140, 196),), keep_ratio=1.0),
        Request("w5 w6"),
    ]
    answers = expected(tmp_path, settings, requests)
    with engine(tmp_path, "TokenPruneQwen2_5_VL", settings, max_num_batched_tokens=24, max_num_seqs=8) as llm:
        for request, answer in zip(requests, answers, strict=True):
            (output,) = served(llm, [request])
            check_equal(output, answer)
        for output, answer in zip(served(llm, requests), answers, strict=True):
            check_equal(output, answer)


def test_a_compiled_language_model(llava: Path) -> None:
    """It reads its position IDs at an address that stays the same."""
    requests = [Request("w1 <image> w2 <image> w3", (image(1), image(2))), Request("w1 <image> w2", (image(3),))]
    answers = expected(llava, FOPRU, requests)
    with engine(llava, "TokenPruneLlava", FOPRU, enforce_eager=False) as llm:
        for request, answer in zip(requests, answers, strict=True):
            (output,) = served(llm, [request])
            check_equal(output, answer)
        for output, answer in zip(served(llm, requests), answers, strict=True):
            check_equal(output, answer)
