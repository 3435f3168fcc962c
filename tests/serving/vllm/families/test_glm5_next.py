"""GLM-5-Next: how its language model, which runs only on GPUs, uses position IDs."""

# pyright: reportMissingImports=false

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.served.cpu.glm5 import NAME
from helpers.served.engine import TOLERANCE, difference, engine, expected, needs_vllm, served
from helpers.served.family import FOPRU
from helpers.served.marks import GLM_IMAGE
from helpers.served.reference import Request
from helpers.served.stored import save

from tokenprune.serving.vllm.architectures import ARCHITECTURES

pytestmark = [needs_vllm, pytest.mark.slow]


def test_original_position_ids_give_another_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison that does not notice wrong position IDs would be worthless."""
    save("glm5_next", tmp_path)
    monkeypatch.setitem(ARCHITECTURES, NAME, replace(ARCHITECTURES[NAME], reads_position_ids=True))
    requests = [Request(f"w1 w2 {GLM_IMAGE} w3 w4", ((1, 140, 112),))]
    (answer,) = expected(tmp_path, FOPRU, requests)
    with engine(tmp_path, NAME, FOPRU) as llm:
        (output,) = served(llm, requests)
    assert difference(output, answer) > 100 * TOLERANCE


def test_position_ids_are_places_in_the_cache() -> None:
    """In a short prompt, vLLM attends to all tokens by their places, which it counts up to a token's position ID."""
    from vllm.models.glm5next.common.sparse_indexer import _decode_topk_seq_lens, _fill_causal_indices

    kept, unpruned = torch.arange(5), torch.tensor([0, 1, 7, 30, 31])
    places = torch.empty(5, 64, dtype=torch.int32)
    _fill_causal_indices(places, kept)
    assert [[place for place in row if place >= 0] for row in places.tolist()] == [[*range(n)] for n in range(1, 6)]
    _fill_causal_indices(places, unpruned)
    assert int(places.max()) == 31  # the prompt has five
    lengths = _decode_topk_seq_lens(kept[4:], torch.tensor([1]), 1, 1, 1, requires_padding=False)
    assert lengths.tolist() == [5]
