"""The grids that the model is trained on, and how often each is drawn."""

from __future__ import annotations

import random
from itertools import accumulate

# (rows, columns): weight. Squares as processors make them, and what images of other shapes give.
WEIGHTS = {
    (6, 6): 3,
    (8, 8): 14,
    (10, 10): 5,
    (12, 12): 13,
    (16, 16): 27,
    (20, 20): 4,
    (24, 24): 6,
    (8, 12): 5,
    (12, 8): 5,
    (10, 16): 5,
    (16, 10): 5,
    (12, 16): 4,
    (16, 12): 4,
    (16, 24): 1,
    (24, 16): 1,
}


def choose_grid(rng: random.Random, most_patches: int) -> tuple[int, int]:
    """Return a grid of at most `most_patches` patches, drawn by weight."""
    allowed = [grid for grid in WEIGHTS if grid[0] * grid[1] <= most_patches]
    return rng.choices(allowed, cum_weights=list(accumulate(WEIGHTS[grid] for grid in allowed)))[0]


def images_of(grid: tuple[int, int], patches: int, text: int = 0, most: int = 32) -> int:
    """Return how many images of a grid, each followed by `text` tokens, make about `patches` tokens; at least two."""
    return max(2, min(most, round(patches / (grid[0] * grid[1] + text))))
