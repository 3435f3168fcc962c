"""Budgets: of a strategy, of its stages and parts, and in proportion to what enters."""

from typing import Any

import pytest
import torch

import tokenprune
from tokenprune.selection import Merge, Selection, budget, n_reaching, split, tile_share
from tokenprune.strategy import Stage
from tokenprune.tokens import KeptInTower, Layout, StageTokens, VisualTokens
from tokenprune.tokens.stages import TextAttention


@pytest.mark.parametrize(
    ("n_visual", "keep_ratio", "keep", "expected"),
    [
        (10, 0.12, None, 1),  # 1.2
        (10, 0.18, None, 2),
        (10, 0.25, None, 3),  # half up
        (5, 0.01, None, 1),  # never none
        (576, 1.0, None, 576),
        (10, None, 4, 4),
        (3, None, 4, 3),
    ],
)
def test_a_budget(n_visual: int, keep_ratio: float | None, keep: int | None, expected: int) -> None:
    assert budget(n_visual, keep_ratio, keep) == expected


def test_a_budget_that_nobody_gave() -> None:
    with pytest.raises(tokenprune.SettingError, match="neither keep_ratio nor keep"):
        budget(10, None, None)


@pytest.mark.parametrize(
    ("n_visual", "n_image", "keep_ratio", "keep", "expected"),
    [
        (10, 10, 0.12, None, 1),  # an image of one tile: half up
        (10, 20, 0.12, None, 2),  # a tile of several: rounded up
        (10, None, 0.12, None, 2),
        (100, 200, 0.07, None, 7),  # 0.07 * 100 is a bit more than 7 in binary
        (10, 10, None, 6, 6),
        (10, 40, None, 6, 2),  # 1.5
        (10, 40, None, 99, 10),
        (3, 300, None, 1, 1),
        (10, None, None, 6, 6),  # if the image is unknown, the whole count
        (4, None, None, 6, 4),
    ],
)
def test_the_share_of_a_tile(
    n_visual: int, n_image: int | None, keep_ratio: float | None, keep: int | None, expected: int
) -> None:
    assert tile_share(n_visual, n_image, keep_ratio, keep) == expected


@pytest.mark.parametrize(
    ("scores", "mass", "expected"),
    [
        ([4.0, 1, 2, 1], 0.5, 1),  # exactly
        ([4.0, 1, 2, 1], 0.51, 2),
        ([4.0, 1, 2, 1], 1.0, 4),
        ([4.0, 0, 0, 0], 0.999, 1),
        ([4.0, 0, 0, 0], 1.0, 4),  # all, also those without a share
        ([0.0, 0, 0], 0.5, 3),  # no share to reach
    ],
)
def test_the_fewest_that_carry_a_share(scores: list[float], mass: float, expected: int) -> None:
    assert n_reaching(torch.tensor(scores), mass) == expected


@pytest.mark.parametrize(("odd", "kind"), [(-1.0, "negative"), (float("inf"), "infinite")])
def test_scores_without_shares(odd: float, kind: str) -> None:
    with pytest.raises(tokenprune.PruningError, match=f"some importance scores are {kind}"):
        n_reaching(torch.tensor([1.0, odd, 2.0]), 0.5)


def test_shares_of_half_precision_add_up() -> None:
    """In bfloat16 the sum would stop at 256."""
    assert n_reaching(torch.ones(1000, dtype=torch.bfloat16), 0.5) == 500


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (5, [4, 16], [1, 4]),
        (4, [2, 2, 2], [1, 1, 2]),
        (5, [4, 4], [2, 3]),
        (3, [0, 6], [0, 3]),
        (0, [], []),
        (2, [2], [2]),
    ],
)
def test_a_split(count: int, sizes: list[int], expected: list[int]) -> None:
    assert split(count, sizes) == expected


# Budgets of stages and in the vision tower are relative to the whole image.


LAYOUT = Layout.raster((1, 4, 4))


def test_a_stage_keeps_the_highest_scores_of_what_is_left_by_a_share_of_all() -> None:
    """A quarter of 16, of 8 that are left."""
    scores = torch.tensor([1.0, 8, 2, 7, 3, 6, 4, 5])
    tokens = StageTokens(torch.zeros(8, 2), torch.arange(0, 16, 2), LAYOUT, scores)
    for stage in (Stage(2, keep_ratio=0.25), Stage(2, keep=4)):
        assert tokenprune.VFlowOpt().select_at(stage, tokens).kept.tolist() == [1, 3, 5, 7]


def test_a_stage_without_scores_to_keep_by() -> None:
    tokens = StageTokens(torch.zeros(8, 2), torch.arange(8), LAYOUT)
    with pytest.raises(tokenprune.PruningError, match=r"select returned no scores.* or override select_at"):
        tokenprune.VFlowOpt().select_at(Stage(2, keep=4), tokens)


def test_of_more_patches_than_the_budget_those_that_are_predicted_worst() -> None:
    """For example if the tower gets the frames of a video one by one."""
    left = KeptInTower(torch.tensor([1, 4, 6]), 16, torch.arange(16.0).remainder(5))
    tokens = VisualTokens(torch.zeros(16, 2), LAYOUT, 0, {"kept_before_tower": left})
    assert tokenprune.PixelPrune(keep=2).select(tokens).kept.tolist() == [1, 4]  # scores 1, 4 and 1
    assert tokenprune.PixelPrune().select(tokens).kept.tolist() == [1, 4, 6]


def test_a_tile_in_the_tower_keeps_at_least_its_share() -> None:
    """1.2 of 10: rounded in an image of one tile, and up in a tile of several, which may be too few otherwise."""
    strategy = tokenprune.FlowCut(keep_ratio=0.12)
    assert (strategy.tower_budget(10, 10), strategy.tower_budget(10, 20), strategy.tower_budget(10, None)) == (1, 2, 2)


# Proportional attention, computed by hand: sizes, and reading attention with an additive mask.


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


# What every strategy declares.


def test_a_part_has_a_count_of_its_own() -> None:
    """A tile treats its share as an image's budget. Later pruning counts all tokens, whatever enters."""
    assert tokenprune.Grid(budget_per="tile").for_part(3, 12) == tokenprune.Grid(keep=3)
    assert tokenprune.FoPru(keep=9, layer=-2, budget_per="tile").for_part(3, 12) == tokenprune.FoPru(keep=3, layer=-2)
    later = tokenprune.FastV(keep_ratio=0.5)
    assert later.for_part(3, 12) is later


def test_who_reads_the_grid_requires_it() -> None:
    assert tokenprune.Grid().required_statistics == {"grid"}
    assert tokenprune.Mosaic().required_statistics == {"grid", "vision_attention"}
    assert tokenprune.FoPru().required_statistics == {"vision_attention"}


@pytest.mark.usefixtures("unchecked")
def test_a_ratio_is_a_float() -> None:
    """Even if a settings file has the whole number 1."""
    ratio = tokenprune.Grid(keep_ratio=1).keep_ratio
    assert isinstance(ratio, float)
    assert repr(tokenprune.Grid(keep_ratio=1)) == "Grid(keep_ratio=1.0)"


# Which decoder layers are skipped.


@pytest.mark.parametrize(
    ("skip", "expected"), [(0, ()), (2, (4, 5)), (4, (2, 3, 4, 5)), ((), ()), ((2, 5), (2, 5)), ([3], (3,))]
)
def test_by_number_or_the_last_but_two(skip: int | tuple[int, ...] | list[int], expected: tuple[int, ...]) -> None:
    assert tokenprune.PAR(skip=skip).skipped_layers(8) == expected


@pytest.mark.parametrize("skip", [5, 10**12, (1,), (6,), (7,), (2, 8)])
def test_the_ends_are_never_skipped(skip: int | tuple[int, ...]) -> None:
    with pytest.raises(
        tokenprune.SettingError, match=r"PAR: skip=.* reaches into the first or last 2 of 8 .*choose from 2\.\.5"
    ):
        tokenprune.PAR(skip=skip).skipped_layers(8)
    with pytest.raises(tokenprune.SettingError, match="this model has no others"):
        tokenprune.PAR(skip=1).skipped_layers(4)
    with pytest.raises(tokenprune.SettingError, match=r"EfficientVLA: skip=\(0,\) reaches into the first or last 2"):
        tokenprune.EfficientVLA(skip=(0,)).skipped_layers(8)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("skip", [-1, True, "2", (2.5,)])
def test_what_names_no_layers(skip: Any) -> None:
    with pytest.raises(tokenprune.SettingError, match="does not name decoder layers"):
        tokenprune.PAR(skip=skip)


def test_a_list_is_a_tuple() -> None:
    """So that strategies from settings files too can be compared and used as keys."""
    assert {tokenprune.PAR(skip=[2, 3]): 1}[tokenprune.PAR(skip=(2, 3))] == 1
