"""NaN in what a strategy reads, such as after an overflow in the vision tower, is an error that says so."""

from __future__ import annotations

import math

import pytest
import torch

from tokenprune import STRATEGIES, PixelPrune, PruningError
from tokenprune.engine.select import checked_selection
from tokenprune.engine.tower.patches import selected_patches
from tokenprune.tokens import Layout, PatchTokens, VisionAttention, VisualTokens

VIDEO = (4, 3, 5)
#: Those that read the tower's attention, or compare the frames of a video.
READING = [name for name, cls in STRATEGIES.items() if cls().needs & {"vision_attention", "frames"}]


@pytest.mark.parametrize("grid", [VIDEO, (4, 1, 2)])
@pytest.mark.parametrize("name", READING)
def test_nan_in_features_and_attention(name: str, grid: tuple[int, int, int]) -> None:
    layout, n = Layout((grid,), n_tiles=grid[0]), math.prod(grid)
    keys = torch.full((grid[0], 2, n // grid[0] + 1, 4), math.nan)
    attention = VisionAttention(torch.ones_like(keys), keys, 0.5, 1, layout)
    tokens = VisualTokens(torch.full((n, 8), math.nan), layout, 0, {"vision_attention": attention})
    with pytest.raises(PruningError, match=rf"{STRATEGIES[name].__name__}\.select: .*NaN"):
        checked_selection(STRATEGIES[name](keep_ratio=0.3), tokens)


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_nan_in_pixels(threshold: float) -> None:
    tokens = PatchTokens(torch.full((60, 12), math.nan), VIDEO)
    with pytest.raises(PruningError, match=r"PixelPrune\.select_patches: importance scores.*NaN"):
        selected_patches(PixelPrune(threshold=threshold), tokens)
