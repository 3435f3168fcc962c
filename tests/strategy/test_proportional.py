"""Proportional attention, computed by hand: sizes, and reading attention with an additive mask."""

from __future__ import annotations

import pytest
import torch

from tokenprune.selection import Merge, Selection
from tokenprune.tokens.text_attention import TextAttention


def test_sizes_by_hand() -> None:
    """Of tokens 0 to 5, 1 and 4 are kept. 0 goes to the first; 2 to both, 3 : 1; 3 and 5 to none; 1 counts once."""
    merge = Merge(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 0, 2, 2, 1]), torch.tensor([1.0, 7.0, 0.3, 0.1, 0.5]))
    selection = Selection(torch.tensor([1, 4]), 6, merged=merge)
    assert selection.sizes().tolist() == pytest.approx([1 + 1 + 0.75, 1 + 0.25])
    before = torch.tensor([2.0, 1.0, 4.0, 1.0, 3.0, 1.0])
    assert selection.sizes(before).tolist() == pytest.approx([1 + 2 + 3.0, 3 + 1.0])
    assert Selection(torch.tensor([1, 4]), 6).sizes(before).tolist() == [1.0, 3.0]


def test_text_attention_has_what_the_mask_adds() -> None:
    queries, keys = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)).unsqueeze(1).unbind(0)
    added = torch.zeros(5, 5)
    added[:, 1] = torch.tensor(3.0).log()
    added = added.masked_fill(torch.ones(5, 5).triu(1).bool(), torch.finfo(torch.float32).min)
    seen = added > -1
    attention = TextAttention(
        queries, keys, 0.5, torch.ones(5).bool(), torch.tensor([1, 2]), torch.tensor([4]), seen, added
    )
    logits = (queries[0, 4] @ keys[0].T * 0.5).exp()
    weights = logits * torch.tensor([1.0, 3.0, 1.0, 1.0, 1.0])
    assert torch.allclose(attention.from_last(), (weights / weights.sum())[1:3], atol=1e-6)
