"""What strategies read of attention: in the tower, of the text, and of what the tower has kept."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tokenprune.selection import Merge, StageReport
from tokenprune.tokens import KeptInTower, Layout, TextAttention, TowerTokens, VisionAttention, attention
from tokenprune.tokens.tower import token_means


def attention_of(n_tiles: int, n_patches: int, n_prefix: int) -> VisionAttention:
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(2, n_tiles, 2, n_patches + n_prefix, 4, generator=generator) * 2
    return VisionAttention(queries, keys, 0.5, n_prefix, Layout(((n_tiles, 1, n_patches),), n_tiles))


def maps(seen: VisionAttention) -> Tensor:
    """Return (tiles, tokens, tokens), averaged over heads."""
    return (seen.queries.float() @ seen.keys.float().transpose(-1, -2) * seen.scale).softmax(-1).mean(1)


@pytest.mark.parametrize("n_prefix", [1, 3])
def test_registers_are_left_out(n_prefix: int) -> None:
    """Only the first of the tokens before the patches is the CLS token."""
    seen = attention_of(2, 6, n_prefix)
    whole = maps(seen)
    torch.testing.assert_close(seen.cls_row(), whole[:, 0, n_prefix:].flatten())
    torch.testing.assert_close(seen.received(), whole[:, n_prefix:, n_prefix:].sum(1).flatten())
    torch.testing.assert_close(seen.cls_or_mean(), seen.cls_row())
    logits = (seen.queries[:, :, :1] @ seen.keys[:, :, n_prefix:].transpose(-1, -2))[:, :, 0] * seen.scale
    torch.testing.assert_close(seen.cls_logits(), logits.transpose(0, 1).flatten(1))
    rows, counted = torch.tensor([[1, 4], [0, 5]]), torch.tensor([[True, True], [True, False]])
    paid = torch.stack([whole[0, [n_prefix + 1, n_prefix + 4]].sum(0), whole[1, n_prefix]])[:, n_prefix:]
    torch.testing.assert_close(seen.received_from(rows, counted), paid)


def test_without_a_cls_token_it_is_the_mean_of_what_all_pay() -> None:
    seen = attention_of(1, 6, 0)
    torch.testing.assert_close(seen.cls_or_mean(), maps(seen)[0].mean(0))


def test_padding_neither_pays_nor_receives_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last three patches are padding, and rows are computed two at a time."""
    seen = attention_of(2, 8, 1)
    padded = replace(seen, real=(torch.arange(9) < 6).expand(2, -1))
    parts = {name: getattr(seen, name)[:, :, :6] for name in ("queries", "keys")}
    alone = replace(seen, layout=Layout(((2, 1, 5),), 2), **parts)
    expected = torch.cat([alone.received().view(2, 5), torch.zeros(2, 3)], 1).flatten()
    torch.testing.assert_close(padded.received(), expected)
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", 2 * 2 * 9)
    torch.testing.assert_close(replace(padded).received(), expected)


def test_what_a_visual_token_reads_of_each_patch_is_its_share_of_its_attention() -> None:
    seen = attention_of(1, 3, 0)
    shares = torch.tensor([[[1.0, 0.0, 0.0], [0.25, 0.5, 0.25]]])
    mixed = replace(seen, shares=shares, layout=Layout.raster((1, 1, 2)))
    first, second, third = maps(seen)[0].sum(0)
    torch.testing.assert_close(mixed.received(), torch.stack([first, first / 4 + second / 2 + third / 4]))


def test_half_precision_is_computed_in_float32() -> None:
    seen = attention_of(1, 40, 1)
    half = replace(seen, queries=seen.queries.bfloat16(), keys=seen.keys.bfloat16())
    same = replace(half, queries=half.queries.float(), keys=half.keys.float())
    for found, expected in (
        (half.received(), same.received()),
        (half.cls_row(), same.cls_row()),
        (half.cls_logits(), same.cls_logits()),
        (half.patch_keys(), same.patch_keys()),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)


def test_tiles_join_with_their_padding_and_shares_and_move_to_a_device() -> None:
    parts = [
        replace(attention_of(1, 3, 0), real=torch.tensor([[True, True, one]]), shares=torch.full((1, 2, 3), share))
        for one, share in ((True, 0.25), (False, 0.75))
    ]
    joined = VisionAttention.concat(parts, Layout(((2, 1, 2),), 2))
    assert joined.real.tolist() == [[True, True, True], [True, True, False]]
    assert joined.shares[:, 0, 0].tolist() == [0.25, 0.75]
    assert (joined.queries.shape[0], joined.keys.shape[0], joined.layout.n_visual) == (2, 2, 4)
    moved = joined.to(torch.device("meta"))
    assert all(part is not None and part.is_meta for part in (moved.queries, moved.keys, moved.real, moved.shares))


# Statistics of a decoder layer's attention against its whole map: grouped heads, padding, masks and blocks.


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


def test_text_of_half_precision_is_computed_in_float32() -> None:
    half = replace(GIVEN, queries=GIVEN.queries.bfloat16(), keys=GIVEN.keys.bfloat16())
    same = replace(half, queries=half.queries.float(), keys=half.keys.float())
    assert half.from_text().dtype == torch.float32
    torch.testing.assert_close(half.from_text(), same.from_text())


# What the vision tower leaves of an image of several tiles, by hand.


def row(*values: int) -> torch.Tensor:
    return torch.tensor(values)


#: Four tokens: all enter, the first two layers drop one each, and the second is merged into another.
FIRST = KeptInTower(
    row(0, 3),
    4,
    torch.tensor([5.0, 1, 2, 4]),
    (StageReport(1, row(0, 1, 3)), StageReport(2, row(0, 3), None, Merge(row(0, 0), row(0, 1), torch.ones(2) / 2))),
    torch.tensor([2.0, 1.0]),
)
#: Three tokens, of which two enter, and the second layer merges one into the other.
SECOND = KeptInTower(
    row(2),
    3,
    torch.tensor([0.0, 1, 9]),
    (StageReport(2, row(2), None, Merge(row(0, 0), row(1, 2), torch.tensor([0.25, 0.75]))),),
    entered=row(1, 2),
)


def test_what_is_left_when_a_layer_begins() -> None:
    assert [FIRST.left_at(layer).tolist() for layer in range(4)] == [[0, 1, 2, 3], [0, 1, 3], [0, 3], [0, 3]]
    assert [SECOND.left_at(layer).tolist() for layer in range(4)] == [[1, 2], [1, 2], [2], [2]]


def test_tiles_one_after_the_other() -> None:
    both = KeptInTower.concat([FIRST, SECOND])
    assert (both.kept.tolist(), both.n_visual) == ([0, 3, 6], 7)
    assert both.scores.tolist() == [5, 1, 2, 4, 0, 1, 9]
    assert both.sizes.tolist() == [2, 1, 1]
    assert both.entered.tolist() == [0, 1, 2, 3, 5, 6]
    first, second = both.stages
    assert (first.layer, first.kept.tolist(), first.merged) == (1, [0, 1, 3, 5, 6], None)
    assert (second.layer, second.kept.tolist()) == (2, [0, 3, 6])
    assert second.merged.targets.tolist() == [0, 0, 2, 2]
    assert second.merged.sources.tolist() == [0, 1, 5, 6]
    assert second.merged.weights.tolist() == [0.5, 0.5, 0.25, 0.75]
    assert KeptInTower.concat([SECOND]) is SECOND


def test_parts_of_what_is_left() -> None:
    inside = FIRST.within(row(1, 2, 3))
    assert (inside.kept.tolist(), inside.n_visual, inside.sizes.tolist()) == ([3], 4, [1])
    part = FIRST.of_part(row(0, 2, 3))
    assert (part.kept.tolist(), part.n_visual, part.sizes.tolist()) == ([0, 2], 3, [2, 1])
    assert part.scores.tolist() == [5, 2, 4]


def test_the_highest_scores_where_more_is_left_than_the_budget() -> None:
    assert KeptInTower.concat([FIRST, SECOND]).at_most(2).kept.tolist() == [0, 6]
    assert FIRST.at_most(2).kept.tolist() == [0, 3]
    unscored = KeptInTower(row(0, 3), 4)
    assert unscored.at_most(1).kept.tolist() == [0, 3]  # without scores, all are kept


def test_patches_in_a_row_become_one_token() -> None:
    assert token_means(3)(torch.arange(6.0)[None]).tolist() == [1, 4]
    assert token_means(1)(torch.arange(3.0)[None]).tolist() == [0, 1, 2]


def test_keys_are_means_over_heads_of_patches_side_by_side() -> None:
    """A CLS token, and two tokens of two patches each."""
    keys = torch.randn(1, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    layout = Layout(((1, 1, 2),), to_tokens=token_means(2))
    attention = VisionAttention(torch.zeros_like(keys), keys, 1.0, 1, layout)
    tokens = TowerTokens(0, 1, attention, torch.zeros(3, 3, 4), row(0, 1), 2, 2)
    torch.testing.assert_close(tokens.keys, keys[0, :, 1:].mean(0).view(2, 8))
