"""Nüwa: its budgets, and what weak tokens gather, computed by hand."""

from dataclasses import replace

import pytest
import torch
from helpers.tokens.scored import scored

from tokenprune import Nuwa, SettingError
from tokenprune.strategies.pre_llm.nuwa import gathering_weights, nearness
from tokenprune.tokens import Layout, VisualTokens


@pytest.mark.parametrize(("average", "entering", "left"), [(64, 112, 16), (128, 224, 32), (192, 336, 48)])
def test_the_papers_budgets(average: int, entering: int, left: int) -> None:
    strategy = Nuwa(keep_ratio=average / 576)
    assert strategy.budget(576) == entering
    (stage,) = strategy.stages(32)
    assert stage.layer == 16
    assert stage.budget(576) == left


def test_stages_can_be_left_out() -> None:
    assert Nuwa(keep_ratio=1.0).stages(8) == ()
    flat = Nuwa(keep_ratio=0.25, progressive=False)
    assert flat.stages(8) == ()
    assert flat.budget(576) == 144


def test_nearness_by_hand() -> None:
    """Reach 2 on two rows of three: neighbours are half as near, diagonal ones at 1.414, two columns away nothing."""
    near = nearness(Layout.raster((1, 2, 3)), torch.tensor([0]), 2.0)
    torch.testing.assert_close(near, torch.tensor([[1, 0.5, 0, 0.5, 1 - 2**0.5 / 2, 0]]))


def test_nothing_is_near_across_frames_tiles_and_newlines() -> None:
    assert nearness(Layout.raster((2, 1, 2)), torch.tensor([0]), 9.0)[0, 2:].tolist() == [0, 0]
    tiled = Layout(((1, 1, 4),), n_tiles=2, tiles=torch.tensor([0, 0, 1, 1]))
    assert (nearness(tiled, torch.tensor([1]), 9.0) > 0).tolist() == [[True, True, False, False]]
    ended = Layout(((1, 1, 3),), newlines=torch.tensor([False, False, True]))
    assert (nearness(ended, torch.tensor([0]), 9.0) > 0).tolist() == [[True, True, False]]


def test_weights_by_hand() -> None:
    """The first token's own 1, half of a like one, nothing of an opposite one: 1 : .5 : 0. Normalised that is 2/3 and
    1/3; with its own weight at 1, 1 and 1/3; normalised again, 3/4 and 1/4."""
    vectors = torch.tensor([[1.0, 0], [1, 0], [-1, 0]])
    weights = gathering_weights(vectors, torch.tensor([0]), torch.tensor([[1.0, 0.5, 0.5]]))
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25, 0]]))


def tokens_of(scores: list[float], layout: Layout) -> VisualTokens:
    return scored(scores, layout, torch.eye(len(scores)) + 1, cls=1.0)


def test_the_weaker_half_gathers() -> None:
    """Cells of two by two keep 8, 7, 2 and 1. The quantile of .55 lies between 2 and 7, so the tokens of 2 and 1
    gather, and the others stay as they are, bit for bit."""
    layout = Layout.raster((1, 4, 4))
    tokens = tokens_of([8.0, 1, 7, 1, 1, 1, 1, 1, 2, 0.5, 1, 0.5, 1, 1, 0.5, 0.5], layout)
    selection = Nuwa(keep_ratio=0.25, progressive=False).select(tokens)
    assert selection.kept.tolist() == [0, 2, 8, 10]
    assert selection.merged.targets.unique().tolist() == [2, 3]
    for target in (2, 3):
        assert float(selection.merged.weights[selection.merged.targets == target].sum()) == pytest.approx(1)
    merged = selection.merged.apply(tokens.features, selection.kept)
    assert torch.equal(merged[:2], tokens.features[[0, 2]])
    assert not torch.allclose(merged[2:], tokens.features[[8, 10]])
    assert Nuwa(keep_ratio=0.25, progressive=False, gather=False).select(tokens).merged is None


@pytest.mark.parametrize(("cls", "expected"), [(-1.0, [0, 1]), (None, [2, 3])])
def test_the_cls_token_decides_where_there_is_one(cls: float | None, expected: list[int]) -> None:
    """Patches attend in proportion to 1, 2, 4 and 8, the CLS token in proportion to the reciprocals."""
    strategy = Nuwa(keep_ratio=0.5, progressive=False, gather=False, cells=None)
    assert strategy.select(scored([1.0, 2, 4, 8], features=torch.eye(4), cls=cls)).kept.tolist() == expected


def test_how_many_are_the_weaker_ones() -> None:
    """Of the 112 tokens that enter for 64, the quantile of .55 lies between the 62nd and the 63rd score from below."""
    tokens = tokens_of([1.0 + 7 * i % 577 for i in range(576)], Layout.raster((1, 24, 24)))
    merged = Nuwa(keep_ratio=64 / 576).select(tokens).merged
    assert len(merged.targets.unique()) == 62


def test_newline_tokens_do_not_gather() -> None:
    """Kept are 8, 7 and the newline token's 2, of which the quantile of .55 is 7.1."""
    layout = Layout(((1, 1, 4),), newlines=torch.tensor([False, False, False, True]))
    strategy = Nuwa(keep_ratio=0.75, progressive=False, cells=None)
    selection = strategy.select(tokens_of([8.0, 7, 1, 2], layout))
    assert selection.kept.tolist() == [0, 1, 3]
    assert selection.merged.targets.unique().tolist() == [1]


def test_lengths_of_features_do_not_count_in_weights() -> None:
    tokens = tokens_of([float(1 + 7 * i % 13) for i in range(16)], Layout.raster((1, 4, 4)))
    longer = replace(tokens, features=tokens.features * torch.arange(1.0, 17.0)[:, None])
    one, other = (Nuwa(keep_ratio=0.5, progressive=False).select(each).merged for each in (tokens, longer))
    torch.testing.assert_close(one.weights, other.weights)
    # A feature of zeros is like none, and keeps its own.
    assert gathering_weights(torch.zeros(2, 3), torch.tensor([0]), torch.ones(1, 2)).tolist() == [[1.0, 0.0]]


def test_none_of_equal_scores_is_weaker() -> None:
    tokens = tokens_of([1.0] * 16, Layout.raster((1, 4, 4)))
    assert Nuwa(keep_ratio=0.25, progressive=False).select(tokens).merged is None


def test_blocks_of_gathering_tokens_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokens_of([float(1 + 7 * i % 13) for i in range(36)], Layout.raster((1, 6, 6)))
    strategy = Nuwa(keep_ratio=0.5, progressive=False)
    whole = strategy.select(tokens).merged
    monkeypatch.setattr("tokenprune.strategies.pre_llm.nuwa.BLOCK_ELEMENTS", 2 * tokens.n_visual)
    parts = strategy.select(tokens).merged
    assert len(whole.targets.unique()) > 4
    assert torch.equal(parts.targets, whole.targets)
    assert torch.equal(parts.sources, whole.sources)
    torch.testing.assert_close(parts.weights, whole.weights)


def test_it_ranks_all_tokens_without_cells() -> None:
    tokens = tokens_of([8.0, 7, 6, 5, *[1.0] * 12], Layout.raster((1, 4, 4)))
    flat = {"keep_ratio": 0.25, "progressive": False, "gather": False}
    assert Nuwa(cells=None, **flat).select(tokens).kept.tolist() == [0, 1, 2, 3]
    assert Nuwa(**flat).select(tokens).kept.tolist() == [0, 2, 8, 10]


def test_a_model_of_one_layer_has_no_stages() -> None:
    with pytest.raises(SettingError, match=r"of one layer has no middle .* so 0\.438 .* Write progressive=False\."):
        Nuwa(keep_ratio=0.25).stages(1)
    assert Nuwa(keep_ratio=0.25, progressive=False).stages(1) == Nuwa(keep_ratio=1.0).stages(1) == ()
