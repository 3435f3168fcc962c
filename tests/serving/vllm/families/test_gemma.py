"""Gemma: attention within images, newlines that merge, crops, and sliding windows shorter than the prompt."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.served.engine import (
    TOLERANCE,
    check_answers,
    check_equal,
    difference,
    engine,
    expected,
    needs_vllm,
    served,
)
from helpers.served.family import FOPRU, words
from helpers.served.marks import GEMMA_IMAGE
from helpers.served.reference import Request
from helpers.served.stored import save
from torch import nn
from transformers import Gemma3TextConfig, Llama4TextConfig, LlamaConfig

from tokenprune.serving.vllm.settings import Settings
from tokenprune.serving.vllm.startup.differences import warn_of_differences

A, B = (1, 140, 112), (2, 200, 90)
I = GEMMA_IMAGE  # noqa: E741
UNPRUNED = {"strategy": "grid", "keep_ratio": 1.0}
CROPPED = (("do_pan_and_scan", True), ("pan_and_scan_min_crop_size", 32))


@needs_vllm
@pytest.mark.slow
def test_without_pruning(tmp_path: Path) -> None:
    """vLLM's own model attends within images like transformers, on which the tests of pruning rely."""
    save("gemma3", tmp_path)
    requests = [Request(f"w1\n{I}\n\nw2", (A,)), Request(f"{I}{I}{I}w3", (B, A, B)), Request("w1\n\nw2")]
    answers = expected(tmp_path, UNPRUNED, requests)
    with engine(tmp_path, "", {}, hf_overrides={}) as llm:
        check_answers(llm, requests, answers)


@needs_vllm
@pytest.mark.slow
def test_crops(tmp_path: Path) -> None:
    """Every crop keeps the same share as the image."""
    save("gemma3", tmp_path)
    requests = [
        Request(f"w1 {I} w2 {I} w3", ((1, 140, 60), (2, 60, 180)), options=CROPPED),
        Request(f"w1 {I}", ((3, 60, 60),), options=CROPPED),
    ]
    answers = expected(tmp_path, FOPRU, requests)
    assert [len(answer.kept) for answer in answers] == [3 + 4, 1]
    with engine(tmp_path, "TokenPruneGemma3", FOPRU, max_num_batched_tokens=128) as llm:
        for output, answer in zip(served(llm, requests), answers, strict=True):
            check_equal(output, answer)


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize("strategy", [FOPRU, {"strategy": "visionzip", "keep_ratio": 0.25, "contextual": 0.5}])
def test_a_window_counts_what_is_left(strategy: dict[str, Any], position_ids: Any, tmp_path: Path) -> None:
    """While only text before the image is out of reach, it equals a window in transformers that is longer by what was
    dropped, since that one counts dropped tokens."""
    n_dropped, window, settings = 7, 20, {**strategy, "position_ids": position_ids}
    requests = [Request(f"{words(10)} {I} {words(8, 30)}", (A,), n_new=5)]
    for name, length in (("own", window), ("longer", window + n_dropped)):
        save("gemma3", tmp_path / name, sliding_window=length)
    (own,), (longer,) = (expected(tmp_path / name, settings, requests) for name in ("own", "longer"))
    assert own.n_prompt > window
    with engine(tmp_path / "own", "TokenPruneGemma3", settings, block_size=16) as llm:
        (output,) = served(llm, requests)
    check_equal(output, longer)
    assert difference(output, own) > 100 * TOLERANCE


class Backend:
    """A stand-in for the backend of vLLM's attention layers, with what warnings read."""

    both_directions = False

    @classmethod
    def get_name(cls) -> str:
        return "CPU_ATTN"

    @classmethod
    def supports_mm_prefix(cls) -> bool:
        return cls.both_directions


class Kernel(Backend):
    both_directions = True


class Layer(nn.Module):
    def __init__(self, both_directions: bool) -> None:
        super().__init__()
        self.attn_backend = Kernel if both_directions else Backend


def warnings(caplog: Any, both_directions: bool, table: int | None = None, **others: Any) -> list[str]:
    text = others.pop("text", Gemma3TextConfig(num_hidden_layers=6, sliding_window=1024))
    config: Any = SimpleNamespace(get_text_config=lambda: text)
    model = SimpleNamespace(hf_config=config, **{"max_model_len": 8192, "is_mm_prefix_lm": True, **others})
    layer: Any = Layer(both_directions)
    if table is not None:
        layer.cache_max_position_num = table
    caplog.clear()
    with caplog.at_level(logging.WARNING, "vllm.tokenprune"):
        warn_of_differences(model, Settings.read(FOPRU), nn.Sequential(layer))
    return [record.getMessage() for record in caplog.records]


def test_differences_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    window, direction = warnings(caplog, both_directions=False)
    assert "5 of the language model's 6 layers attend within a sliding window of 1024 tokens" in window
    assert "attention in both directions within images, which vLLM's CPU_ATTN does not have" in direction
    assert warnings(caplog, both_directions=True) == [window]
    assert warnings(caplog, both_directions=False, is_mm_prefix_lm=False) == [window]
    assert warnings(caplog, both_directions=True, max_model_len=256) == []


def test_chunks_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    text = Llama4TextConfig(num_hidden_layers=8)
    (message,) = warnings(caplog, both_directions=True, text=text)
    assert "6 of the language model's 8 layers attend within chunks of 8192 tokens" in message
    assert warnings(caplog, both_directions=True, max_model_len=2048, text=text) == []


def test_yarn_with_another_length_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 8192}
    text = LlamaConfig(rope_parameters=yarn)
    assert warnings(caplog, both_directions=True, text=text) == []
    assert warnings(caplog, both_directions=True, text=text, table=8192) == []
    (message,) = warnings(caplog, both_directions=True, text=text, table=4 * 8192)
    assert "from another length than 8192" in message
