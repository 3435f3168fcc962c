"""Asks a PatchStrategy which visual tokens of an image to encode at all."""

from __future__ import annotations

from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.towers.row import Row
from tokenprune.selection import Selection
from tokenprune.strategy import PatchStrategy
from tokenprune.strategy.calls import check_is_selection, strategy_call
from tokenprune.tokens.tower import PatchTokens


def patch_tokens(row: Row, colors: Float[Tensor, "patches channels colors"]) -> list[PatchTokens]:
    """The visual tokens of every image in a row. colors: the colours of its patches, in the tower's order."""
    if bool((row.tokens[1:] < row.tokens[:-1]).any()):
        colors = colors[row.tokens.argsort(stable=True)]
    ends = torch.tensor([prod(grid) for grid in row.images], device=row.tokens.device).cumsum(0)
    sizes = torch.searchsorted(row.tokens.sort().values, ends).diff(prepend=ends.new_zeros(1)).tolist()
    parts = zip(colors.split(sizes), row.images, strict=True)
    return [PatchTokens(part.reshape(prod(grid), -1), grid) for part, grid in parts]


def selected_patches(strategy: PatchStrategy, tokens: PatchTokens) -> Selection:
    """What the strategy keeps of one image before the tower. Raises PruningError for anything but a Selection."""
    with strategy_call(strategy, "select_patches", tokens.pixels):
        selection = strategy.select_patches(tokens)
    check_is_selection(strategy, "select_patches", selection, tokens.n_visual)
    return selection
