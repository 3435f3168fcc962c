"""LFM3-VL: stored answers are transformers', and sliding windows shorter than the prompt."""

from pathlib import Path

import pytest
import torch
import transformers
from helpers.served.engine import TOLERANCE, check_equal, difference, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU, OWN_ROTATION, words
from helpers.served.marks import LFM3_IMAGE
from helpers.served.reference import Request, inputs_of
from helpers.served.stored import answers, save

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
def test_stored_answers_are_those_of_transformers(tmp_path: Path) -> None:
    """Without pruning."""
    save("lfm3_vl", tmp_path)
    request = Request(f"w1 w2 {LFM3_IMAGE} w3 w4", (B,), keep_ratio=1.0)
    (wanted,) = answers(tmp_path, "fopru", {"keep_ratio": 0.25}, "original", [request])
    model = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
    inputs = inputs_of(transformers.AutoProcessor.from_pretrained(tmp_path), request)
    inputs.pop("mm_token_type_ids", None)
    first = model(**inputs).logits[0, -1].log_softmax(-1)
    assert {token: first[token].item() for token in wanted.first} == pytest.approx(wanted.first, abs=TOLERANCE)


@needs_vllm
@pytest.mark.slow
@pytest.mark.skipif(LACK is not None, reason=str(LACK))
def test_a_window_counts_what_is_left(tmp_path: Path) -> None:
    """One that the unpruned prompt exceeds, but not the pruned one, has no effect."""
    requests = [Request(f"{words(5)} {LFM3_IMAGE} w8", (A,), n_new=3), Request(f"{words(30)} {LFM3_IMAGE} w8", (A,))]
    for name, window in (("own", WINDOW), ("longer", 4096)):
        save("lfm3_vl", tmp_path / name, sliding_window=window)
    own, longer = (expected(tmp_path / name, FOPRU, requests) for name in ("own", "longer"))
    with engine(tmp_path / "own", NAME, FOPRU, **OWN_ROTATION) as llm:
        outputs = served(llm, requests)
    assert len(outputs[0].prompt_token_ids) + 3 <= WINDOW < own[0].n_prompt
    for output, answer in zip(outputs, own, strict=True):
        check_equal(output, answer)
    check_equal(outputs[0], longer[0])
    assert difference(outputs[1], longer[1]) > 100 * TOLERANCE
