"""Mosaic: its rectangles, what it keeps of them and what it merges, computed by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.tokens.scored import scored
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tokenprune import Mosaic
from tokenprune.strategies.pre_llm import mosaic
from tokenprune.strategies.pre_llm.mosaic import best_of_each, budget_cells, similar_nearby
from tokenprune.tokens import Layout

#: A canvas of 3 x 3 with a newline token after each row, and two frames of 2 x 2.
MIXED = Layout(((1, 3, 4), (2, 2, 2)), n_tiles=3, newlines=torch.tensor([False, False, False, True] * 3 + [False] * 8))


def test_one_token_of_each_rectangle_and_what_is_like_it() -> None:
    """0 1 | 2 3     The best of the halves are 1 and 6. The upper row is like 1, the lower like 6. A reach of one side
    4 5 | 6 7     is two tokens, which 3 and 4 are just within."""
    red, blue = [1.0, 0.0], [0.0, 1.0]
    features = torch.tensor([red, red, red, red, blue, blue, blue, blue])
    tokens = scored([1.0, 4, 1, 1, 1, 1, 2, 1], Layout.raster((1, 2, 4)), features)
    selection = Mosaic(keep=2, reach=1.0).select(tokens)
    assert selection.kept.tolist() == [1, 6]
    merged = selection.merged
    pairs = dict(zip(merged.sources.tolist(), merged.targets.tolist(), strict=True))
    assert pairs == {0: 0, 1: 0, 2: 0, 3: 0, 4: 1, 5: 1, 6: 1, 7: 1}
    shares = dict(zip(merged.sources.tolist(), merged.weights.tolist(), strict=True))
    assert shares[1] == pytest.approx(4 / 7)
    assert shares[0] == pytest.approx(1 / 7)
    assert shares[6] == pytest.approx(2 / 5)
    near = Mosaic(keep=2, reach=0.5).select(tokens).merged  # one token
    # 3 and 4 are not next to a kept token.
    assert sorted(near.sources.tolist()) == [0, 1, 2, 5, 6, 7]
    assert Mosaic(keep=2, merge=False).select(tokens).merged is None


def test_what_the_cls_token_attends_to() -> None:
    """Patches attend in proportion to 1, 2, 4 and 8, the CLS token in proportion to the reciprocals."""
    tokens = scored([1.0, 2, 4, 8], features=torch.ones(4, 2), cls=-1.0)
    assert Mosaic(keep=2).select(tokens).kept.tolist() == [1, 3]
    assert Mosaic(keep=2, score="cls").select(tokens).kept.tolist() == [0, 2]


def test_scores_are_the_attention_of_all_heads() -> None:
    """Each patch pays 8, 1, 1 and 2 twelfths in one head, and 1, 4, 5 and 2 in the other."""
    tokens = scored([[8.0, 1, 1, 2], [1, 4, 5, 2]], features=torch.ones(4, 2))
    for strategy in (Mosaic(keep=2), Mosaic(keep=2, merge=False), Mosaic(keep=4)):
        scores = strategy.select(tokens).scores
        torch.testing.assert_close(scores, torch.tensor([9.0, 5, 6, 4]) / 12 * 2)


def test_a_rectangle_that_nothing_attends_to_is_a_plain_mean() -> None:
    tokens = scored([1.0, 1.0, 1e-38, 1e-38], Layout.raster((1, 1, 4)), torch.ones(4, 2))
    attention = tokens.vision_attention
    keys = attention.keys.masked_fill(attention.keys < -1, -200.0)  # whose share is 0 in float32
    tokens = replace(tokens, statistics={"vision_attention": replace(attention, keys=keys)})
    selection = Mosaic(keep=2).select(tokens)
    assert selection.scores[2:].tolist() == [0.0, 0.0]
    assert selection.merged.weights.tolist() == [0.5] * 4


def test_tokens_join_by_direction_even_the_opposite_one() -> None:
    """1 points like 2, though its product with 0 is higher. 3 is the opposite of 2, the only one nearby."""
    features = torch.tensor([[10.0, 1.0], [1.0, 2.0], [0.1, 1.0], [0.0, -1.0]])
    merged = Mosaic(keep=2).select(scored([4.0, 1, 2, 1], Layout.raster((1, 1, 4)), features)).merged
    pairs = dict(zip(merged.sources.tolist(), merged.targets.tolist(), strict=True))
    assert pairs == {0: 0, 1: 1, 2: 1, 3: 1}


def test_of_two_kept_tokens_nearby_the_more_similar() -> None:
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [0.4, 1], [0, 1]]), dim=1)
    sources, targets = similar_nearby(vectors, Layout.raster((1, 1, 3)), torch.tensor([0, 2]), 1.0)
    assert (sources.tolist(), targets.tolist()) == ([0, 1, 2], [0, 1, 1])


def test_kept_tokens_stand_for_themselves() -> None:
    """Equal features, but a kept token is never merged into another."""
    sources, targets = similar_nearby(torch.ones(3, 1), Layout.raster((1, 1, 3)), torch.tensor([0, 2]), 5.0)
    assert dict(zip(sources.tolist(), targets.tolist(), strict=True)) == {0: 0, 1: 0, 2: 1}


def test_nothing_is_merged_across_frames_tiles_and_newlines() -> None:
    sources, _ = similar_nearby(torch.ones(4, 1), Layout.raster((2, 1, 2)), torch.tensor([0]), 9.0)
    assert sources.tolist() == [0, 1]
    tiled = Layout(((1, 1, 4),), n_tiles=2, tiles=torch.tensor([0, 0, 1, 1]))
    assert similar_nearby(torch.ones(4, 1), tiled, torch.tensor([0]), 9.0)[0].tolist() == [0, 1]
    ended = Layout(((1, 1, 4),), newlines=torch.tensor([False, False, True, True]))
    assert similar_nearby(torch.ones(4, 1), ended, torch.tensor([0, 2]), 9.0)[0].tolist() == [0, 1, 2]


def test_blocks_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.nn.functional.normalize(torch.randn(48, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    layout, kept = Layout.raster((1, 6, 8)), torch.arange(0, 48, 5)
    whole = similar_nearby(vectors, layout, kept, 2.0)
    monkeypatch.setattr(mosaic, "BLOCK_ELEMENTS", 30)
    assert [part.tolist() for part in similar_nearby(vectors, layout, kept, 2.0)] == [part.tolist() for part in whole]


class TF32(TorchDispatchMode):
    """Rounds the factors of matrix products to eleven bits, also in float32 distances, like a GPU with
    `torch.set_float32_matmul_precision("high")`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._euclidean_dist.default:
            one, other = args
            left = torch.cat([-2 * one, one.square().sum(1, keepdim=True), torch.ones_like(one[:, :1])], 1)
            right = torch.cat([other, torch.ones_like(other[:, :1]), other.square().sum(1, keepdim=True)], 1)
            return (rounded(left) @ rounded(right).T).clamp(min=0).sqrt()
        if func is torch.ops.aten.mm.default:
            args = tuple(map(rounded, args))
        return func(*args, **(kwargs or {}))


def rounded(values: torch.Tensor) -> torch.Tensor:
    return ((values.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def test_what_is_near_does_not_depend_on_the_precision_of_products() -> None:
    """Of a large image, the places of one token in 16, every fourth in a row and a column: all others are within 2.9
    tokens of one, and equal features go to the first."""
    row, column = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    kept = ((row % 4 == 1) & (column % 4 == 1)).flatten().nonzero()[:, 0]
    vectors, layout = torch.ones(4096, 1), Layout.raster((1, 64, 64))
    expected = similar_nearby(vectors, layout, kept, 2.9)
    with TF32():
        found = similar_nearby(vectors, layout, kept, 2.9)
    assert len(found[0]) == 4096
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_cells_are_rectangles_of_patches_and_runs_of_newline_tokens() -> None:
    assert budget_cells(Layout.raster((1, 2, 4)), 2).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    ended = Layout(((1, 4, 3),), newlines=torch.tensor([False, False, True] * 4))
    # Of three, one is for the four newline tokens, and two are for 4 x 2 patches: one above the other.
    assert budget_cells(ended, 3).tolist() == [1, 1, 0, 1, 1, 0, 2, 2, 0, 2, 2, 0]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20))
def test_every_cell_has_a_token_and_no_cell_crosses_frames(n_kept: int) -> None:
    cells = budget_cells(MIXED, n_kept)
    assert cells.max() <= n_kept
    assert cells.unique()[:n_kept].tolist() == list(range(n_kept))
    frame = torch.tensor([0, 0, 0, -1] * 3 + [1] * 4 + [2] * 4)
    for cell in range(n_kept):
        assert len(frame[cells == cell].unique()) == 1
    kept = best_of_each(torch.rand(20), cells, n_kept)
    assert len(kept) == n_kept
    assert sorted(cells[kept].tolist()) == list(range(n_kept))


def test_a_budget_smaller_than_the_frames() -> None:
    cells = budget_cells(Layout.raster((3, 1, 2)), 1)
    assert sorted(cells.tolist()) == [0, 0, 1, 1, 1, 1]  # of two frames nothing is kept


def test_of_equal_scores_the_first() -> None:
    assert best_of_each(torch.ones(4), torch.tensor([0, 0, 1, 1]), 2).tolist() == [0, 2]
