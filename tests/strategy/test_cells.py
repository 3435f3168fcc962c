"""Cells of the grid: their tokens, and which of these are kept, by hand."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from helpers.tokens.scored import ANYRES, scored
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune import STRATEGIES, FastV, FoPru, VisPruner
from tokenprune.engine.select import select_per_tile
from tokenprune.strategies import VisionZip
from tokenprune.strategy import ScoreStrategy, Stage
from tokenprune.tokens import Layout, StageTokens, TextAttention, VisionAttention, VisualTokens
from tokenprune.tokens.cells import cell_side, grid_cells, order_by_cell, rank_within, selection_cells
from tokenprune.tokens.layout import of_left

RANKED = [name for name, cls in STRATEGIES.items() if issubclass(cls, ScoreStrategy)]


def test_an_odd_grid_ends_in_smaller_cells() -> None:
    assert selection_cells(Layout.raster((1, 3, 5)), 2).tolist() == [0, 0, 1, 1, 2, 0, 0, 1, 1, 2, 3, 3, 4, 4, 5]


def test_frames_and_rasters_share_no_cell() -> None:
    assert selection_cells(Layout.raster((2, 2, 2)), 2).tolist() == [0] * 4 + [1] * 4
    assert selection_cells(Layout(((1, 2, 2), (1, 1, 3))), 2).tolist() == [0, 0, 0, 0, 1, 1, 2]


def test_cells_are_numbered_across_rows_frames_and_rasters() -> None:
    wide, high = [0, 0, 1, 1, 2, 2] * 2, [0, 0] * 2 + [1, 1] * 2
    below = [cell + 3 for cell in wide]
    assert grid_cells(Layout.raster((1, 4, 6)), 2.0)[0].tolist() == wide + below
    cells, n_cells = grid_cells(Layout(((2, 4, 2), (2, 2, 6))), 2.0)
    frames = [[cell + first for cell in high] for first in (0, 2)] + [
        [cell + first for cell in wide] for first in (4, 7)
    ]
    assert cells.tolist() == [cell for frame in frames for cell in frame]
    assert n_cells == 10


def test_what_is_left_has_the_cells_of_the_whole_grid() -> None:
    index = torch.tensor([1, 4, 7])
    cells, n_cells = grid_cells(of_left(Layout.raster((1, 2, 4)), index), 2.0)
    assert (cells.tolist(), n_cells) == ([0, 0, 1], 2)


def test_newlines_of_each_raster_have_cells_of_their_own() -> None:
    """Of five in a raster, four have a cell and one has another. Patches have cells of two by two."""
    layout = Layout(((1, 5, 2), (1, 5, 2)), newlines=torch.arange(20) % 2 == 1)
    cells = selection_cells(layout, 2)
    assert cells[0::2].tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5]
    assert cells[1::2].tolist() == [6, 6, 6, 6, 7, 8, 8, 8, 8, 9]


def test_what_no_budget_needs_follows_by_its_rank_in_its_cell() -> None:
    """9 8 7 | 3 2 1: one a cell, and then the second and the third of each, whichever is higher."""
    scores, cells = torch.tensor([9.0, 8, 7, 3, 2, 1]), torch.tensor([0, 0, 0, 1, 1, 1])
    assert scores[order_by_cell(scores, cells, 2)].tolist() == [9, 3, 8, 2, 7, 1]


def test_newlines_have_cells_of_as_many_tokens() -> None:
    """The canvas's patches fill four cells and its four newline tokens a fifth, where the grid's own would make them
    two more."""
    cells = selection_cells(ANYRES, 2)
    assert cells[9:].view(4, 5)[:, :4].unique().numel() == 4
    newlines = cells[ANYRES.newlines]
    assert newlines.unique().numel() == 1
    assert not torch.isin(newlines, cells[~ANYRES.newlines]).any()  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]


def test_the_best_of_each_cell_comes_first() -> None:
    """9 8 | 1 2     One token a cell is enough for four: 9, 2, 5 and 4, best first. For five, two a cell are needed,
    7 6 | 1 1     and the five best of those eight are kept: 9, 8, 5, 4 and 2. The third of the first cell, 7, is not,
    5 1 | 4 1     though only 9 and 8 are better.
    1 1 | 1 1"""
    scores = torch.tensor([9.0, 8, 1, 2, 7, 6, 1, 1, 5, 1, 4, 1, 1, 1, 1, 1])
    cells = grid_cells(Layout.raster((1, 4, 4)), 2.0)[0]
    assert scores[order_by_cell(scores, cells, 4)][:4].tolist() == [9, 5, 4, 2]
    assert scores[order_by_cell(scores, cells, 3)][:3].tolist() == [9, 5, 4]
    assert scores[order_by_cell(scores, cells, 5)][:5].tolist() == [9, 8, 5, 4, 2]
    assert order_by_cell(scores, cells, 4)[4:].tolist()[0] == 1  # the 8 is next


def test_side_by_budget() -> None:
    """One token a cell fills the budget on an even grid, and no larger cells would do."""
    assert [cell_side(n, 576) for n in (576, 288, 192, 144, 128, 64, 58, 36, 28, 1)] == [2, 2, 2, 2, 2, 3, 3, 4, 4, 24]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(2, 5), st.data())
def test_budgets_are_exact_and_cells_nearly_equal(height: int, width: int, frames: int, side: int, data: Any) -> None:
    layout = Layout.raster((frames, height, width))
    n_kept = data.draw(st.integers(1, layout.n_visual))
    scores = torch.rand(layout.n_visual, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    cells = selection_cells(layout, side)
    kept = order_by_cell(scores, cells, n_kept)[:n_kept]
    assert len(kept.unique()) == n_kept
    worst = int(rank_within(scores, cells)[kept].max())  # nothing is taken deeper in a cell than the budget needs
    assert int(cells.bincount().clamp(max=worst).sum()) < n_kept
    counts, sizes = cells[kept].bincount(minlength=int(cells.max()) + 1), cells.bincount()
    assert (counts <= sizes).all()


def test_cells_keep_what_ranking_would_drop() -> None:
    """All of the attention goes to the left half; cells of two keep half of the tokens on the right."""
    layout = Layout.raster((1, 4, 4))
    tokens = scored([8.0, 7, 0.1, 0.2] * 4, layout)
    assert set((FoPru(keep=4).select(tokens).kept % 4).tolist()) <= {0, 1}
    assert (FoPru(keep=4, cells=2).select(tokens).kept % 4 >= 2).sum() == 2
    assert (
        FoPru(keep=4, cells="auto").select(tokens).kept.tolist() == FoPru(keep=4, cells=2).select(tokens).kept.tolist()
    )


def test_auto_is_by_the_budget_of_what_is_ranked() -> None:
    """Of 36 tokens 4 are kept: cells of three. VisionZip ranks only its dominant ones, 2 of 36: cells of four."""
    layout = Layout.raster((1, 6, 6))
    tokens = scored(torch.rand(36, generator=torch.Generator().manual_seed(0)).tolist(), layout)
    for strategy, side in ((FoPru(keep=4), 3), (VisionZip(keep=4, contextual=0.5), 4)):
        auto, by_hand = (replace(strategy, cells=cells).select(tokens) for cells in ("auto", side))
        assert auto.kept.tolist() == by_hand.kept.tolist()
        assert auto.kept.tolist() != replace(strategy, cells=2).select(tokens).kept.tolist()


@pytest.mark.parametrize("cells", ["auto", 2, 3])
def test_a_budget_per_tile_has_cells_in_each_tile(cells: Any) -> None:
    """With a budget per tile, each tile has its own cells and its own share."""
    tokens = scored(torch.rand(29, generator=torch.Generator().manual_seed(1)).tolist(), ANYRES)
    attention = tokens.vision_attention
    spread = replace(ANYRES, to_tokens=lambda values: values.flatten()[:29])
    attention = VisionAttention(torch.ones(3, 1, 10, 1), torch.randn(3, 1, 10, 1), 1.0, 0, spread)
    tokens = VisualTokens(tokens.features, spread, 0, {"vision_attention": attention})
    strategy = FoPru(keep=12, cells=cells, budget_per="tile")
    selection = select_per_tile(strategy, tokens)
    assert ANYRES.tiles[selection.kept].bincount().tolist() == [3, 4, 5]  # of 9, 10 and 10
    assert len(FoPru(keep=12, cells=cells).select(tokens).kept) == 12


def stage_tokens(left: list[int], scores: list[float], n_visual: int) -> StageTokens:
    """Return the tokens of a row that are left. The last prompt token attends to them in proportion to `scores`."""
    keys = torch.tensor([*scores, 1.0]).log()[None, :, None]
    n = len(left)
    real, last = torch.ones(n + 1).bool(), torch.tensor([n])
    attention = TextAttention(torch.ones_like(keys), keys, 1.0, real, torch.arange(n), last)
    side = int(n_visual**0.5)
    grid = (1, side, side) if side**2 == n_visual else (1, 1, n_visual)
    return StageTokens(torch.zeros(n, 2), torch.tensor(left), Layout.raster(grid), text_attention=attention)


def test_stages_count_cells_of_the_whole_image() -> None:
    """Two stages on one row of eight: the tokens that are left have the cells that they had before."""
    tokens, stage = stage_tokens([0, 1, 3, 6, 7], [9.0, 8, 1, 7, 6], 8), Stage(2, keep=3)
    assert FastV().select_at(stage, tokens).kept.tolist() == [0, 1, 3]
    assert FastV(cells=2).select_at(stage, tokens).kept.tolist() == [0, 2, 3]  # cells 0 0 1 3 3


def test_auto_in_a_stage_is_by_all_tokens_of_the_image() -> None:
    """Of 36 tokens 16 are left, and 4 are kept: cells of three, not of two."""
    scores = torch.rand(16, generator=torch.Generator().manual_seed(0)).tolist()
    tokens, stage = (
        stage_tokens([row * 6 + column for row in range(4) for column in range(4)], scores, 36),
        Stage(2, keep=4),
    )
    kept = {cells: FastV(cells=cells).select_at(stage, tokens).kept.tolist() for cells in ("auto", 2, 3)}
    assert kept["auto"] == kept[3] != kept[2]


@pytest.mark.parametrize("name", RANKED)
def test_every_ranking_strategy_takes_cells(name: str, llava: Any) -> None:
    from helpers.contract.cells import DEPTH, FAMILIES, model_of

    import tokenprune

    model = model_of("llava-clip", DEPTH)
    kept: list[list[list[int]]] = []
    for cells in (None, 2):
        strategy: Any = STRATEGIES[name](keep_ratio=0.4, cells=cells)  # pyright: ignore[reportCallIssue]
        with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
            kept.append([])
            for seed in range(4):  # with few tokens, they may be the same by chance
                model(**FAMILIES["llava-clip"].prompt([1], seed=seed))
                (image,) = handle.report.images
                kept[-1] += [image.kept.tolist(), *(stage.kept.tolist() for stage in image.stages)]
    assert list(map(len, kept[0])) == list(map(len, kept[1]))
    assert kept[0] != kept[1]


def test_who_takes_cells() -> None:
    """Strategies that keep the best tokens only by a score. By default, only Nuwa uses cells, as in its paper."""
    assert set(RANKED) == {
        *("fopru", "visionzip", "vispruner", "prumerge", "nuwa"),
        *("fastv", "par", "pyramiddrop", "adatoken", "sparsevlm", "efficientvla", "attentionmass"),
    }
    assert {name: STRATEGIES[name]().cells for name in RANKED} == {**dict.fromkeys(RANKED), "nuwa": "auto"}  # pyright: ignore[reportAttributeAccessIssue]
    assert not any("cells" in {f.name for f in fields(cls)} for name, cls in STRATEGIES.items() if name not in RANKED)


@pytest.mark.parametrize(
    "strategy", [VisionZip(contextual=0.5), VisPruner(important=0.5)], ids=lambda one: type(one).__name__
)
def test_cells_count_for_the_part_of_the_budget_that_is_ranked(strategy: Any) -> None:
    """Of 6, 5 | 2, 1 | 4, 3 two are ranked: the best of two cells, 6 and 4. Of the others, every second one is kept."""
    tokens = scored([6.0, 5.0, 2.0, 1.0, 4.0, 3.0], Layout.raster((1, 1, 6)))
    strategy = replace(strategy, keep_ratio=None, keep=4, cells=2)
    assert strategy.select(tokens).kept.tolist() == [0, 1, 3, 4]
