"""A strategy that keeps every visual token and merges some of them into others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from helpers.contract.oracle import as_reported, assert_close, dropped_columns, oracle_logits
from helpers.tiny import prompt

import tokenprune
from tokenprune.selection import Merge, Selection
from tokenprune.strategy import Strategy
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class Blend(Strategy):
    """Keeps all, and makes the first token the mean of all of them."""

    keep_ratio: float | None = 1.0

    def select(self, tokens: VisualTokens) -> Selection:
        n, every = tokens.n_visual, torch.arange(tokens.n_visual)
        merge = Merge(torch.zeros(n, dtype=torch.long), every, torch.full((n,), 1 / n))
        return Selection(every, n, merged=merge)


def test_merging_without_dropping(llava: Any) -> None:
    inputs = prompt([1, 1])
    with torch.no_grad(), tokenprune.patch(llava, Blend()) as handle:
        logits = llava(**inputs).logits
    ids = inputs["input_ids"]
    dropped = dropped_columns(ids, [handle.report])
    assert not dropped.any()
    with as_reported(llava, ids, [handle.report]):
        expected = oracle_logits(llava, ids, inputs["attention_mask"], inputs["pixel_values"], dropped)
    length = int(inputs["attention_mask"].sum(1).min())  # of the shorter row
    assert_close(logits[:, -length:], expected[:, -length:])
