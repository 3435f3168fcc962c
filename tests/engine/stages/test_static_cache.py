"""A static cache made by the caller, for rows without padding in which a stage keeps different numbers of tokens."""

from __future__ import annotations

import pytest
import torch
from helpers.contract.oracle import assert_close
from helpers.families.base import CACHE
from helpers.models.staged import model_of
from helpers.tiny import prompt
from transformers import StaticCache

import tokenprune
from tokenprune import AttentionMass


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_unequal_rows_in_a_static_cache(attention: str) -> None:
    """Found by the fuzz: without a mask from the caller, the stage's own mask had no columns for the cache's free
    room."""
    model = model_of(attention)
    inputs = prompt([1, 1], texts=[4, 4], seed=5)
    del inputs["attention_mask"]
    room = StaticCache(config=model.config.get_text_config(), max_cache_len=64)
    with torch.no_grad(), tokenprune.patch(model, AttentionMass(keep_ratio=1.0, mass=0.6, layer=1)) as handle:
        expected = model(**inputs, use_cache=True)
        assert len({len(image.stages[0].kept) for image in handle.report.images}) > 1
        found = model(**inputs, **{CACHE: room}, use_cache=True)
        assert_close(found.logits, expected.logits)
        token = torch.full((2, 1), 5)
        after = [model(input_ids=token, **{CACHE: out[CACHE]}, use_cache=True) for out in (expected, found)]
    assert_close(after[1].logits, after[0].logits)
