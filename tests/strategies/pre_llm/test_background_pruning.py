"""BackgroundPruning: its budgets, Anchored Token Selection by hand, and what it merges."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.families.base import IMAGE
from helpers.tokens.by_hand import at
from torch import Tensor

import tokenprune
from tokenprune import BackgroundPruning, PruningError, UnsupportedError
from tokenprune.adapters import adapter_for
from tokenprune.engine.select import checked_selection
from tokenprune.strategies.pre_llm.background_pruning import score_newlines
from tokenprune.strategies.shared.clusters import find_roots, link_neighbours
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

RANKS = ["cls", "column", "distinct"]
RASTER = Layout.raster((1, 6, 6))
TILES = Layout.concat([RASTER] * 3)
# An overview of 2 x 2, and a canvas of two tiles, 2 x 2 and 2 x 1, with a newline token after each row.
CANVAS = Layout(
    ((1, 2, 2), (1, 2, 4)),
    n_tiles=3,
    to_tokens=lambda values: torch.cat([values[0], *(carried_row(values, row) for row in (0, 1))]),
    tiles=torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 1, 1, 2, 2]),
    newlines=torch.tensor([False] * 7 + [True] + [False] * 3 + [True]),
)


def carried_row(values: Tensor, row: int) -> Tensor:
    cells = torch.cat([values[1, 2 * row : 2 * row + 2], values[2, 2 * row : 2 * row + 1]])
    return torch.cat([cells, cells.amax(0, keepdim=True)])


def tokens_of(layout: Layout, seed: int = 0, n_patches: int | None = None) -> VisualTokens:
    """Return tokens that are smooth enough for clusters of several tokens."""
    generator = torch.Generator().manual_seed(seed)
    n_patches = n_patches or layout.n_visual // layout.n_tiles
    queries, keys = torch.randn(2, layout.n_tiles, 2, n_patches + 1, 4, generator=generator)
    features = torch.randn(layout.n_visual, 8, generator=generator) + 2
    attention = VisionAttention(queries, keys, 0.5, 1, layout)
    return VisualTokens(features, layout, 0, {"vision_attention": attention})


LAYOUTS = {"raster": tokens_of(RASTER), "tiles": tokens_of(TILES), "canvas": tokens_of(CANVAS, n_patches=4)}


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("budget_per", ["image", "tile"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_budgets_are_exact(layout: str, budget_per: Any, rank: Any) -> None:
    tokens = LAYOUTS[layout]
    for keep in sorted({1, 2, 3, 5, 9, tokens.n_visual // 2, tokens.n_visual - 1, tokens.n_visual}):
        strategy = BackgroundPruning(keep=keep, budget_per=budget_per, rank=rank, threshold=-1.0)
        selection = checked_selection(strategy, tokens)
        assert len(selection.kept) == keep
        assert selection.scores.isfinite().all()
        tiles = tokens.layout.tiles
        if budget_per == "tile" and tiles is not None:
            exact = tiles.bincount() * keep / tokens.n_visual
            assert ((tiles[selection.kept].bincount(minlength=3) - exact).abs() < 1).all()
        merge = selection.merged
        if merge is None:
            continue
        assert keep < tokens.n_visual
        assert len(merge.sources.unique()) == len(merge.sources)
        roots = selection.kept[merge.targets]
        assert set(roots.tolist()) <= set(merge.sources.tolist())
        if tiles is not None:
            assert torch.equal(tiles[roots], tiles[merge.sources])
        if tokens.layout.newlines is not None:
            assert not tokens.layout.newlines[merge.sources].any()
        new, counts = merge.apply(tokens.features, selection.kept), merge.targets.bincount(minlength=keep)
        for place, count in enumerate(counts.tolist()):
            old = tokens.features[merge.sources[merge.targets == place]] if count else tokens.features[selection.kept]
            torch.testing.assert_close(new[place], old.mean(0) if count else old[place])


def test_more_tokens_than_clusters() -> None:
    """All 36 tokens are one cluster; ten are asked for, so its weakest links are cut."""
    tokens = tokens_of(RASTER)
    flat = replace(tokens, features=torch.ones(36, 8) + 1e-3 * tokens.features)
    one = BackgroundPruning(keep=1, threshold=-1.0).select(flat)
    n_clusters = len(find_roots(link_neighbours(flat.features, RASTER)[0]).unique())
    for keep in range(n_clusters, 36):
        selection = BackgroundPruning(keep=keep, threshold=-1.0).select(flat)
        assert len(selection.merged.sources) + keep - len(selection.merged.targets.unique()) == 36  # no token is lost
    assert len(one.kept) == 1


@pytest.mark.parametrize("rank", RANKS)
def test_many_tiles_at_once_are_each_of_them(rank: Any) -> None:
    tokens = LAYOUTS["tiles"]
    strategy = BackgroundPruning(keep=15, rank=rank, threshold=0.8)
    together = strategy.select(tokens)
    for tile in range(3):
        index, part = tokens.of_tile(tile)
        attention = tokens.vision_attention
        queries, keys = attention.queries[tile : tile + 1], attention.keys[tile : tile + 1]
        statistics = {"vision_attention": VisionAttention(queries, keys, 0.5, 1, RASTER)}
        alone = replace(strategy, keep=5).select(VisualTokens(part.features, RASTER, 0, statistics))
        assert index[alone.kept].tolist() == [kept for kept in together.kept.tolist() if kept // 36 == tile]
        torch.testing.assert_close(together.scores[index], alone.scores)


def test_anchored_token_selection_by_hand() -> None:
    """Two clusters of two tokens each, in one row. The CLS token's attention to the mean keys, of two heads."""
    layout = Layout.raster((1, 1, 4))
    angles = torch.tensor([0.0, 0.1, 1.5, 1.6])
    keys = torch.tensor([[[9.0], [1.0], [3.0], [0.0], [2.0]], [[9.0], [0.0], [2.0], [5.0], [5.0]]])[None]
    attention = VisionAttention(torch.ones_like(keys), keys, 0.5, 1, layout)
    tokens = VisualTokens(torch.stack([angles.cos(), angles.sin()], 1), layout, 0, {"vision_attention": attention})
    selection = BackgroundPruning(keep=1).select(tokens)
    logits = torch.tensor([[2.0, 1.0], [1.0, 5.0]]) * 0.5
    first, second = logits.softmax(1).mean(0).tolist()
    assert selection.scores.tolist() == pytest.approx([first, first, second, second])
    assert selection.kept.tolist() == [2]
    torch.testing.assert_close(selection.merged.apply(tokens.features, selection.kept)[0], tokens.features[2:].mean(0))
    alone = BackgroundPruning(keep=1, cluster=False).select(tokens)
    each = (keys[0, :, 1:, 0] * 0.5).softmax(1).mean(0)
    assert alone.merged is None
    torch.testing.assert_close(alone.scores, each)
    column = BackgroundPruning(keep=1, rank="column").select(tokens).scores
    torch.testing.assert_close(column, attention.received().view(2, 2).mean(1).repeat_interleave(2))
    distinct = BackgroundPruning(keep=1, rank="distinct").select(tokens).scores
    torch.testing.assert_close(distinct, torch.full((4,), 1 - 0.1).fill_(float(1 - torch.tensor(0.1).cos())))


def test_newline_tokens_stand_for_their_rows() -> None:
    tokens = LAYOUTS["canvas"]
    for rank in ("cls", "distinct"):
        scores = BackgroundPruning(keep=4, rank=rank).select(tokens).scores
        # Of its own tile, the third: one token in each row.
        assert scores[7] == scores[6]
        assert scores[11] == scores[10]
    layout = replace(RASTER, grids=((1, 6, 6), (1, 1, 1)), newlines=torch.arange(37) == 36)
    layout = replace(layout, to_tokens=lambda values: torch.cat([values.flatten(), values.amax(1)]))
    scores = BackgroundPruning(keep=4).select(tokens_of(layout, n_patches=36)).scores
    assert scores[36] == scores[:36].max()


def test_a_tile_s_attention_is_shared_by_its_clusters_without_newline_tokens() -> None:
    """If all clusters have one token, their scores add up to 1 in each tile."""
    scores = BackgroundPruning(keep=4, cluster=False).select(LAYOUTS["canvas"]).scores
    assert scores is not None
    assert CANVAS.tiles is not None
    assert CANVAS.newlines is not None
    totals = torch.zeros(3).index_add(0, CANVAS.tiles, scores.masked_fill(CANVAS.newlines, 0.0))
    torch.testing.assert_close(totals, torch.ones(3))


def test_tiles_compete_for_a_budget_per_image() -> None:
    """Shares of .52, .47 and 0 in the first tile, .73, 0 and .27 in the second, and thirds in the last."""
    layout = Layout.concat([Layout.raster((1, 1, 3))] * 3)
    keys = torch.tensor([[0.0, 5, 4.9, 0], [0.0, 6, 0, 5], [0.0, 1, 1, 1]])[:, None, :, None]
    attention = VisionAttention(torch.ones_like(keys), keys, 1.0, 1, layout)
    tokens = VisualTokens(torch.randn(9, 4), layout, 0, {"vision_attention": attention})
    for budget_per, kept in (("tile", [0, 3, 6]), ("image", [0, 1, 3])):
        assert BackgroundPruning(keep=3, budget_per=budget_per, cluster=False).select(tokens).kept.tolist() == kept  # pyright: ignore[reportArgumentType]


def test_opposite_neighbours_are_the_most_distinct() -> None:
    """Of angles in a row: 180 and 90 degrees from the nearest, and 10; the last has no neighbour."""
    tokens = VisualTokens(at(0, 180, 270, 280, 0), Layout(((1, 1, 4), (1, 1, 1))))
    scores = BackgroundPruning(keep=2, rank="distinct", cluster=False).select(tokens).scores
    ten = 1 - float(torch.tensor(10.0).deg2rad().cos())
    torch.testing.assert_close(scores, torch.tensor([2.0, 1.0, ten, ten, 2.0]))


def test_very_strong_attention_is_no_nan() -> None:
    keys = torch.tensor([0.0, 200, 300, 100])[None, None, :, None]
    attention = VisionAttention(torch.ones_like(keys), keys, 1.0, 1, Layout.raster((1, 1, 3)))
    tokens = VisualTokens(torch.eye(3), attention.layout, 0, {"vision_attention": attention})
    scores = BackgroundPruning(keep=1, cluster=False).select(tokens).scores
    assert scores.tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-30)


def test_a_newline_token_has_no_score_of_the_next_row() -> None:
    """Of a row in two tiles, the newline token is in the second, and the next row begins in the first."""
    newlines, tiles = torch.tensor([False, False, True] * 2), torch.tensor([0, 1, 1] * 2)
    tokens = VisualTokens(torch.randn(6, 2), Layout(((1, 2, 3),), n_tiles=2, tiles=tiles, newlines=newlines))
    scores = score_newlines(torch.tensor([1.0, 2, 0, 9, 3, 0]), tokens, tiles)
    assert scores.tolist() == [1, 2, 2, 9, 3, 3]


def test_towers_without_cls() -> None:
    model = FAMILIES["llava-siglip"].build()
    with pytest.raises(UnsupportedError, match=r"BackgroundPruning\(rank=\"column\"\)"):
        tokenprune.patch(model, BackgroundPruning())
    assert "cls" not in adapter_for(model).offers
    inputs = FAMILIES["llava-siglip"].prompt([1])
    for rank in ("column", "distinct"):
        with torch.no_grad(), tokenprune.patch(model, BackgroundPruning(keep_ratio=0.3, rank=rank)) as handle:
            model(**inputs)
        assert handle.report.n_visual == int((inputs["input_ids"] == IMAGE).sum())
    with pytest.raises(PruningError, match="no CLS token"):
        VisionAttention(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2), 1.0, 0, Layout.raster((1, 2, 2))).cls_logits()


def test_cls_logits_are_carried_and_linear() -> None:
    """The mean over a square of patches is the logit of their mean key."""
    attention = tokens_of(Layout.raster((1, 4, 4))).vision_attention
    merged = attention.with_layout(Layout.squares(4, 4, 2)).cls_logits()
    keys = attention.keys[0, :, 1:].view(2, 2, 2, 2, 2, 4).mean((2, 4)).flatten(1, 2)
    torch.testing.assert_close(merged, 0.5 * (keys @ attention.queries[0, :, 0, :, None])[..., 0])


def test_links_below_the_quantile_are_cut() -> None:
    """At 0, 10, 40 and 100 degrees in a row: from the lowest cosine on, all are one cluster; from the highest on, the
    first two are, and the last, which is least like its neighbour, is kept as it is."""
    tokens = VisualTokens(at(0, 10, 40, 100), Layout.raster((1, 1, 4)))
    one, several = (BackgroundPruning(keep=1, rank="distinct", quantile=q).select(tokens) for q in (0.0, 1.0))
    assert one.merged.sources.tolist() == [0, 1, 2, 3]
    assert (several.kept.tolist(), several.merged) == ([3], None)


def clusters(strategy: BackgroundPruning, offset: float) -> int:
    """Return the number of clusters after adding the same vector of this length to all features, which raises cosines
    but hardly changes their order."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 12, 8, generator=generator).cumsum(0).cumsum(1).flatten(0, 1)
    features = torch.nn.functional.normalize(features, dim=1) + offset * torch.eye(8)[0]
    tokens = VisualTokens(features, Layout.raster((1, 12, 12)), 0, {})
    scores = strategy.select(tokens).scores
    return len(scores.unique())


def test_the_quantile_is_that_of_the_images_own_cosines() -> None:
    """With a fixed cosine, features that are all alike form far fewer clusters."""
    settings: dict[str, Any] = {"keep": 1, "rank": "distinct"}
    relative = [clusters(BackgroundPruning(quantile=0.6, **settings), offset) for offset in (0.0, 3.0, 30.0)]
    fixed = [clusters(BackgroundPruning(threshold=0.99, **settings), offset) for offset in (0.0, 3.0, 30.0)]
    assert max(relative) <= 1.2 * min(relative)
    assert max(fixed) > 1.5 * min(fixed)
