"""Strategies keep the same tokens whatever torch is told for all code: within torch.autocast, in which models are
trained, and with another default device, as `torch.set_default_device("cuda")` sets one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest
import torch
from helpers.models.tiled import inputs_of, model_of

import tokenprune
from tokenprune import STRATEGIES, BackgroundPruning
from tokenprune.engine.select import checked_selection
from tokenprune.strategy import PatchStrategy, TowerStrategy
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

GRID, WIDTH = (16, 18), 32
N = GRID[0] * GRID[1]
BEFORE = [name for name, cls in STRATEGIES.items() if not issubclass(cls, (PatchStrategy, TowerStrategy))]
#: The meta device stands for a GPU: what is made there by mistake cannot be read.
SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "default device": partial(torch.device, "meta"),
}


def tokens_of(seed: int, n_frames: int) -> VisualTokens:
    generator = torch.Generator().manual_seed(seed)
    layout = Layout(((n_frames, GRID[0] // n_frames, GRID[1]),), n_frames)
    queries, keys = torch.randn(2, n_frames, 2, N // n_frames + 1, 16, generator=generator)
    statistics = {
        "vision_attention": VisionAttention(queries, keys, 0.5, 1, layout),
        "pixels": torch.randn(1, 3, 32, 36, generator=generator),
    }
    return VisualTokens(torch.randn(N, WIDTH, generator=generator), layout, 0, statistics)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", BEFORE)
def test_selections_are_the_same(name: str, setting: str) -> None:
    strategy = STRATEGIES[name](keep_ratio=0.5 if name in ("pyramiddrop", "sparsevlm") else 0.3)
    for seed in range(5):
        tokens = tokens_of(seed, 4 if "frames" in strategy.needs else 1)
        plain = checked_selection(strategy, tokens)
        with SETTINGS[setting]():
            other = checked_selection(strategy, tokens)
        assert torch.equal(other.kept, plain.kept)
        assert (other.scores is None) == (plain.scores is None)
        if other.scores is not None and plain.scores is not None:
            assert torch.equal(other.scores, plain.scores)


def test_a_model_with_another_default_device() -> None:
    """Layouts of tiles with newline tokens, stages and reports are made on the CPU too."""
    model, inputs = model_of("llava-next"), inputs_of("llava-next", video=False)
    strategy = BackgroundPruning(keep_ratio=0.3)
    with torch.no_grad():
        with tokenprune.patch(model, strategy):
            expected = model(**inputs).logits
        with torch.device("meta"), tokenprune.patch(model, strategy) as handle:
            assert torch.equal(model(**inputs).logits, expected)
    assert handle.report.n_kept < handle.report.n_visual
