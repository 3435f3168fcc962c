"""Two processes, each with half of the heads, keep the same visual tokens as one."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.served.engine import check_equal, check_served, engine, expected, needs_vllm, served
from helpers.served.families import FAMILIES
from helpers.served.family import FOPRU
from helpers.served.marks import IMAGE, MISTRAL_IMAGE
from helpers.served.reference import Request
from helpers.served.stored import stored

pytestmark = [
    needs_vllm,
    pytest.mark.slow,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes need two cores"),
    pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs"),
    pytest.mark.skipif(
        not entry_points(group="vllm.general_plugins", name="tokenprune"),
        reason="vLLM's other processes load plug-ins that are installed: make test-vllm",
    ),
]
A, B = (1, 100, 100), (2, 150, 80)
#: Seconds that suffice for two engines, if no rank waits for the other.
PATIENCE = 600


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """Fail after a time limit: vLLM waits forever for a rank that waits for another one, which skipped a collective."""

    def fail(*_: object) -> None:
        pytest.fail(f"the ranks have not answered in {PATIENCE} seconds: does one of them wait for the other?")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def requests(image: str) -> list[Request]:
    return [
        Request(f"w1 w2 {image} w3 w4", (A,)),
        Request(f"{image} w5 {image} w6 w7", (A, B)),
        Request(f"w1 w2 {image} w3 w4", (B,), keep_ratio=0.5),
        Request("w9 w10 w11"),
    ]


@pytest.mark.parametrize(
    ("save", "architecture", "image"),
    [(stored("llava-clip"), "TokenPruneLlava", IMAGE), (stored("mistral3"), "TokenPruneMistral3", MISTRAL_IMAGE)],
    ids=["llava", "markers"],
)
def test_two_ranks(save: Any, architecture: str, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank also has only half of the embedding table."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    save(tmp_path)
    settings: dict[str, Any] = {"strategy": "visionzip", "keep_ratio": 0.25, "contextual": 0.4}
    options = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    check_served(tmp_path, architecture, settings, requests(image), **options)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "glm4v", "cohere_compass", "kimi_k25", "kimi_vl"])
def test_ranks_that_encode_other_images(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank without images, or with other image sizes than the other rank, keeps the same as a single process."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    family = next(one for one in FAMILIES if one.name == name)
    family.save(tmp_path)
    i, large = family.image, (3, 112, 224)
    asked = [*requests(i), Request(f"{i} w5 {i} w6 {i} w7", (A, large, B))]
    answers = expected(tmp_path, FOPRU, asked)
    options = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp", "mm_encoder_tp_mode": "data"}
    with engine(tmp_path, family.architecture, FOPRU, **options, **family.options) as llm:
        for request, answer in zip(asked, answers, strict=True):
            (output,) = served(llm, [request])
            check_equal(output, answer)
        llm.llm_engine.reset_encoder_cache()
        llm.reset_prefix_cache()
        for output, answer in zip(served(llm, asked), answers, strict=True):
            check_equal(output, answer)


def test_ranks_encode_the_same_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    family = next(one for one in FAMILIES if one.name == "qwen2_5_vl")
    family.save(tmp_path)
    settings: dict[str, Any] = {"strategy": "compose", "steps": ["pixelprune", "fopru:keep=12"]}
    asked = [replace(request, flat=True) for request in requests(family.image)]
    options = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    check_served(tmp_path, family.architecture, settings, asked, **options)
