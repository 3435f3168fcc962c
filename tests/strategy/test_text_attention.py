"""Statistics of a decoder layer's attention against its whole map: grouped heads, padding, masks and blocks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tokenprune.tokens import TextAttention, attention

#: Ten tokens, of which the first is padding and the last two are.
REAL = torch.tensor([False, *[True] * 7, False, False])
GENERATOR = torch.Generator().manual_seed(0)
GIVEN = TextAttention(
    queries=torch.randn(6, 10, 4, generator=GENERATOR) * 2,
    keys=torch.randn(2, 10, 4, generator=GENERATOR) * 2,
    scale=0.5,
    real=REAL,
    visual=torch.tensor([2, 3, 5]),
    text=torch.tensor([6, 7]),
)
CAUSAL = torch.ones(10, 10).tril().bool()


def whole_map(seen: Tensor = CAUSAL) -> Tensor:
    """Return the mean over six heads, in which three heads each share a key head."""
    keys = GIVEN.keys.repeat_interleave(3, 0)
    logits = (GIVEN.queries @ keys.transpose(1, 2) * GIVEN.scale).masked_fill(~(seen & REAL), -torch.inf)
    return logits.softmax(-1).mean(0)


def expected(rows: list[int], seen: Tensor = CAUSAL) -> Tensor:
    return whole_map(seen)[rows].mean(0)[GIVEN.visual]


def test_what_the_rows_pay() -> None:
    torch.testing.assert_close(GIVEN.from_last(), expected([7]))
    torch.testing.assert_close(GIVEN.from_text(), expected([6, 7]))
    torch.testing.assert_close(GIVEN.from_all(), expected([1, 2, 3, 4, 5, 6, 7]))
    torch.testing.assert_close(GIVEN.from_rows(torch.tensor([4])), expected([4]))
    assert GIVEN.from_rows(torch.tensor([1])).tolist() == [0.0] * 3  # the row comes before them


def test_a_mask_says_what_each_token_sees_but_for_padding() -> None:
    seen = CAUSAL | (torch.arange(10) < 5)[:, None] & (torch.arange(10) < 5)  # the first five see each other
    masked = replace(GIVEN, seen=seen)
    torch.testing.assert_close(masked.from_rows(torch.tensor([2, 7])), expected([2, 7], seen))
    assert masked.from_rows(torch.tensor([2]))[1] > 0


@pytest.mark.parametrize("elements", [1, 6 * 10 * 2])
def test_blocks_of_rows_add_up(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    added = torch.linspace(0, 2, 100).view(10, 10)
    biased = replace(GIVEN, added=added)
    whole = biased.from_all()
    assert not torch.allclose(whole, GIVEN.from_all())
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", elements)
    torch.testing.assert_close(biased.from_all(), whole)


def test_half_precision_is_computed_in_float32() -> None:
    half = replace(GIVEN, queries=GIVEN.queries.bfloat16(), keys=GIVEN.keys.bfloat16())
    same = replace(half, queries=half.queries.float(), keys=half.keys.float())
    assert half.from_text().dtype == torch.float32
    torch.testing.assert_close(half.from_text(), same.from_text())
