"""Each strategy on its own: exact budgets, the selection that its definition gives, and what it must not do."""

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import FOR_IMAGES
from helpers.tokens.scored import drawn

import tokenprune
from tokenprune.adapters.layouts.shrunk import shrunk_grid
from tokenprune.strategies.registry import changed_settings, settings_of
from tokenprune.strategy import PatchStrategy, TowerStrategy
from tokenprune.tokens import KeptInTower, Layout, PatchTokens, TowerTokens, VisionAttention, VisualTokens
from tokenprune.tokens.shrunk import Shrunk, stretched
from tokenprune.tokens.visual import STATISTICS

AVERAGES = {"vflowopt", "pyramiddrop", "sparsevlm", "nuwa", "adatoken"}  # an average over layers: only a ratio
#: All but the one whose tokens are the cells of a grid.
EXACT = [name for name in tokenprune.STRATEGIES if name != "downsample"]
VIDEOS = [(3, 4, 5), (9, 1, 1), (2, 3, 6)]
GRIDS = [(1, 6, 6), (1, 5, 7), (1, 1, 1), (1, 1, 9), (1, 8, 1), VIDEOS[0]]


def grids_for(name: str) -> list[tuple[int, int, int]]:
    return GRIDS if name in FOR_IMAGES else VIDEOS


def tokens_of(grid: tuple[int, int, int], seed: int = 0) -> VisualTokens:
    return drawn(Layout((grid,), n_tiles=grid[0]), seed)


def through_tower(strategy: tokenprune.Strategy, tokens: VisualTokens) -> VisualTokens:
    """Return the tokens after a tower with one layer, before and after which strategies that prune there may drop some.
    Does nothing for other strategies."""
    if isinstance(strategy, PatchStrategy):
        grid = tokens.grids[0]
        pixels = torch.rand(tokens.n_visual, 12, generator=torch.Generator().manual_seed(2))
        done = strategy.select_patches(PatchTokens(pixels, grid))
        left = KeptInTower(done.kept, tokens.n_visual, done.scores, ())
        return replace(tokens, statistics={**tokens.statistics, "kept_before_tower": left})
    if isinstance(strategy, tokenprune.Downsample):
        grid = tokens.grids[0]
        small = Layout((shrunk_grid(grid, strategy.budget(tokens.n_visual)),), n_tiles=grid[0])
        shrunk = Shrunk(stretched(tokens.layout, small), small, small.grid[1:])
        return replace(tokens, statistics={**tokens.statistics, "shrunk": shrunk})
    if not isinstance(strategy, TowerStrategy):
        return tokens
    n, generator = tokens.n_visual, torch.Generator().manual_seed(1)
    queries, keys, values = torch.randn(3, 1, 2, n + 1, 4, generator=generator) * 3
    attention = VisionAttention(queries, keys, 0.5, 1, Layout.raster((1, 1, n)))
    done = strategy.select_in_tower(TowerTokens(0, 0, attention, values[0], torch.arange(n), n, n))
    left = KeptInTower(done.kept, n, done.scores, ())
    return replace(tokens, statistics={**tokens.statistics, "kept_in_tower": left})


@pytest.mark.parametrize(("name", "grid"), [(name, grid) for name in EXACT for grid in grids_for(name)])
def test_budgets_are_exact(name: str, grid: tuple[int, int, int]) -> None:
    tokens = tokens_of(grid)
    counts = [] if name in AVERAGES else [{"keep": 1}, {"keep": 7}]
    for settings in ({"keep_ratio": 0.1}, {"keep_ratio": 1 / 3}, {"keep_ratio": 1.0}, *counts):
        strategy = tokenprune.STRATEGIES[name](**settings)  # pyright: ignore[reportArgumentType]
        seen = through_tower(strategy, tokens)
        selection = strategy.select(seen)
        assert len(selection.kept) == strategy.budget(tokens.n_visual)
        assert selection.n_visual == tokens.n_visual
        again = strategy.select(seen)
        assert torch.equal(selection.kept, again.kept)
    keeping_all = tokenprune.STRATEGIES[name](keep_ratio=1.0)
    everything = keeping_all.select(through_tower(keeping_all, tokens))
    assert everything.kept.tolist() == list(range(tokens.n_visual))
    assert everything.merged is None


@pytest.mark.parametrize("name", tokenprune.STRATEGIES)
def test_strategies_declare_what_they_read(name: str) -> None:
    strategy = tokenprune.STRATEGIES[name]()
    full = through_tower(strategy, tokens_of(grids_for(name)[0]))
    assert strategy.needs <= set(STATISTICS)
    declared = {k: v for k, v in full.statistics.items() if k in strategy.needs}
    bare = VisualTokens(full.features, full.layout, 0, declared)
    assert torch.equal(strategy.select(bare).kept, strategy.select(full).kept)


def test_random_depends_on_seed_and_image_alone() -> None:
    one, other = tokens_of((1, 6, 6), seed=1), tokens_of((1, 6, 6), seed=2)
    kept = tokenprune.Random(keep=9, seed=0).select(one).kept
    same_image = VisualTokens(other.features, one.layout, 5, {"pixels": one.pixels.double()})
    state = torch.get_rng_state()
    assert torch.equal(tokenprune.Random(keep=9, seed=0).select(same_image).kept, kept)
    assert not torch.equal(tokenprune.Random(keep=9, seed=1).select(one).kept, kept)
    assert not torch.equal(tokenprune.Random(keep=9, seed=0).select(other).kept, kept)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's own draws are not disturbed
    counts = torch.zeros(36)
    for seed in range(2000):
        counts[tokenprune.Random(keep=9, seed=seed).select(one).kept] += 1
    assert counts.min() > 400  # 500 each, standard deviation 19
    assert counts.max() < 600


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("cls", "settings", "plain"),
    [
        (tokenprune.FastV, {"layer": np.int64(2)}, {"layer": 2}),
        (tokenprune.FoPru, {"layer": np.int32(-2), "mass": np.float64(0.5)}, {"layer": -2, "mass": 0.5}),
        (tokenprune.FoPru, {"cells": np.int64(3)}, {"cells": 3}),
        (tokenprune.Random, {"seed": np.uint8(7)}, {"seed": 7}),
        (tokenprune.EfficientVLA, {"skip": [np.int64(3), 4], "key": np.int64(2)}, {"skip": (3, 4), "key": 2}),
        (tokenprune.Mosaic, {"reach": np.float32(2)}, {"reach": 2.0}),
    ],
)
def test_numbers_of_numpy_are_saved_as_plain_ones(
    cls: type[tokenprune.Strategy], settings: dict[str, Any], plain: dict[str, Any]
) -> None:
    strategy = cls(**settings)
    assert strategy == cls(**plain)
    assert repr(strategy) == repr(cls(**plain))
    assert json.dumps(changed_settings(strategy)) == json.dumps(changed_settings(cls(**plain)))
    assert cls(**settings_of(strategy)) == strategy  # what a run stores: no setting that the class does not take


def test_settings_are_frozen() -> None:
    strategy: Any = tokenprune.FoPru(keep=3)
    with pytest.raises(FrozenInstanceError):
        strategy.keep = 4
    assert strategy.keep_ratio is None


def test_every_strategy_is_a_strategy_class() -> None:
    assert all(issubclass(cls, tokenprune.Strategy) for cls in tokenprune.STRATEGIES.values())
    assert all(name == cls.__name__.lower() for name, cls in tokenprune.STRATEGIES.items())
