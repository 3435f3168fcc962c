"""LFM3-VL: the tests' own model equals transformers', and sliding windows shorter than the prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.served.converted.lfm3 import LFM3_IMAGE, LFM3_VIDEO, load_lfm3_vl, save_lfm3_vl
from helpers.served.engine import TOLERANCE, check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU, OWN_ROTATION, words
from helpers.served.reference import Request, draw, film

from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.releases import reason_of_lack

NAME = "TokenPruneLfm3VL"
A, B = (1, 140, 112), (2, 200, 90)
WINDOW = 20
LACK = reason_of_lack(ARCHITECTURES[NAME])


@pytest.mark.skipif(
    not hasattr(transformers, "Lfm3VlForConditionalGeneration"), reason="a transformers without LFM3-VL"
)
@torch.no_grad()
def test_the_tests_own_model_is_that_of_transformers(tmp_path: Path) -> None:
    """With the same weights, for images and a video in a prompt that is longer than the window."""
    save_lfm3_vl(tmp_path, window=WINDOW)
    kind: Any = transformers.AutoModelForImageTextToText
    theirs, loading = kind.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not any(loading.values())
    ours, processor = load_lfm3_vl(tmp_path)
    frames, facts = film(3, 96, 64, 4)
    inputs = processor(
        images=[draw(*A), draw(*B)],
        text=[f"w1 {LFM3_IMAGE} w2 {LFM3_IMAGE} w3 {LFM3_VIDEO} w4"],
        videos=[frames],
        video_metadata=[facts],
        do_sample_frames=False,
        return_tensors="pt",
    )
    assert torch.allclose(ours(**inputs).logits, theirs(**inputs).logits, atol=1e-4)


@needs_vllm
@pytest.mark.slow
@pytest.mark.skipif(LACK is not None, reason=str(LACK))
def test_a_window_counts_what_is_left(tmp_path: Path) -> None:
    """One that the unpruned prompt exceeds, but not the pruned one, has no effect."""
    requests = [Request(f"{words(5)} {LFM3_IMAGE} w8", (A,), n_new=3), Request(f"{words(30)} {LFM3_IMAGE} w8", (A,))]
    for name, window in (("own", WINDOW), ("longer", 4096)):
        save_lfm3_vl(tmp_path / name, window=window)
    own, longer = (expected(tmp_path / name, FOPRU, requests) for name in ("own", "longer"))
    with engine(tmp_path / "own", NAME, FOPRU, **OWN_ROTATION) as llm:
        outputs = served(llm, requests)
    assert len(outputs[0].prompt_token_ids) + 3 <= WINDOW < own[0].n_prompt
    for output, answer in zip(outputs, own, strict=True):
        check_equal(output, answer)
    check_equal(outputs[0], longer[0])
    assert difference(outputs[1], longer[1]) > 100 * TOLERANCE
