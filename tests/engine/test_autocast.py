"""Within torch.autocast, in which models are trained, strategies keep the tokens that they keep without it."""

from __future__ import annotations

import pytest
import torch

from tokenprune import STRATEGIES
from tokenprune.engine.select import checked_selection
from tokenprune.strategy import PatchStrategy, TowerStrategy
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

GRID, WIDTH = (16, 18), 32
N = GRID[0] * GRID[1]
BEFORE = [name for name, cls in STRATEGIES.items() if not issubclass(cls, (PatchStrategy, TowerStrategy))]


def tokens_of(seed: int, n_frames: int) -> VisualTokens:
    generator = torch.Generator().manual_seed(seed)
    layout = Layout(((n_frames, GRID[0] // n_frames, GRID[1]),), n_frames)
    queries, keys = torch.randn(2, n_frames, 2, N // n_frames + 1, 16, generator=generator)
    statistics = {
        "vision_attention": VisionAttention(queries, keys, 0.5, 1, layout),
        "pixels": torch.randn(1, 3, 32, 36, generator=generator),
    }
    return VisualTokens(torch.randn(N, WIDTH, generator=generator), layout, 0, statistics)


@pytest.mark.parametrize("name", BEFORE)
def test_selections_are_the_same(name: str) -> None:
    strategy = STRATEGIES[name](keep_ratio=0.5 if name in ("pyramiddrop", "sparsevlm") else 0.3)
    for seed in range(5):
        tokens = tokens_of(seed, 4 if "frames" in strategy.needs else 1)
        plain = checked_selection(strategy, tokens)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = checked_selection(strategy, tokens)
        assert torch.equal(mixed.kept, plain.kept)
        assert (mixed.scores is None) == (plain.scores is None)
        if mixed.scores is not None and plain.scores is not None:
            assert torch.equal(mixed.scores, plain.scores)
