"""Strategies that vLLM can run keep exactly their budget: it counts an image's tokens before it encodes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tokenprune import STRATEGIES
from tokenprune.engine.select import checked_selection
from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.startup.refusals import check_strategy
from tokenprune.strategies.registry import make
from tokenprune.strategy import Strategy
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

N_LAYERS = 6


def served() -> list[Strategy]:
    """Return every strategy with default settings and one stage that the plug-in does not refuse."""
    found = []
    for name, cls in STRATEGIES.items():
        strategy = make(name, progressive=False) if hasattr(cls, "progressive") else make(name)
        try:
            check_strategy(strategy, N_LAYERS, "TokenPruneLlava")
        except UnsupportedError:
            continue
        found.append(strategy)
    return found


def tokens(layout: Layout, strategy: Strategy, seed: int) -> VisualTokens:
    generator = torch.Generator().manual_seed(seed)
    n_patches = 36
    queries, keys = (torch.randn(layout.n_tiles, 2, 1 + n_patches, 8, generator=generator) for _ in range(2))
    pixels = torch.rand(layout.n_tiles, 3, 24, 24, generator=generator)
    statistics = {
        "vision_attention": VisionAttention(queries, keys, 0.5, 1, layout),
        "pixels": tuple(pixels),
        "colors": tuple(pixels),
    }
    features = torch.randn(layout.n_visual, 16, generator=generator)
    return VisualTokens(features, layout, 0, {name: one for name, one in statistics.items() if name in strategy.needs})


def test_most_strategies_are_served() -> None:
    assert {"FoPru", "VisionZip", "DivPrune", "VFlowOpt", "Grid"} <= {type(one).__name__ for one in served()}
    assert not {"FastV", "PyramidDrop", "FlowCut"} & {type(one).__name__ for one in served()}


@pytest.mark.parametrize("strategy", served(), ids=lambda strategy: type(strategy).__name__)
@pytest.mark.parametrize("ratio", [0.03, 0.25, 0.6])
def test_exact(strategy: Strategy, ratio: float) -> None:
    pruned = replace(strategy, keep_ratio=ratio)
    tile = Layout.raster((1, 6, 6))
    for seed, layout in enumerate([tile, Layout.concat([tile] * 3)]):
        kept = checked_selection(pruned, tokens(layout, pruned, seed)).kept
        assert len(kept) == pruned.budget(layout.n_visual)
