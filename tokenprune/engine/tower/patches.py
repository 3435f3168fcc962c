"""Asks a PatchStrategy which visual tokens of an image to encode at all."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.towers.row import Row
from tokenprune.selection import Selection
from tokenprune.strategy import PatchStrategy
from tokenprune.strategy.base import check_is_selection, strategy_call
from tokenprune.tokens.tower import PatchTokens


def patch_tokens(row: Row, colors: Float[Tensor, "patches channels colors"]) -> list[PatchTokens]:
    """The visual tokens of every image in a row, in raster order. colors: the colours of its patches, in the tower's
    order."""
    places = row.tokens if row.places is None else row.places[row.tokens]
    if bool((places[1:] < places[:-1]).any()):
        colors = colors[places.argsort(stable=True)]
    ends = torch.tensor([prod(grid) for grid in row.images], device=places.device).cumsum(0)
    sizes = torch.searchsorted(places.sort().values, ends).diff(prepend=ends.new_zeros(1)).tolist()
    parts = zip(colors.split(sizes), row.images, strict=True)
    return [PatchTokens(part.reshape(prod(grid), -1), grid) for part, grid in parts]


def selected_patches(strategy: PatchStrategy, tokens: PatchTokens) -> Selection:
    """What the strategy keeps of one image before the tower. Raises PruningError for anything but a Selection."""
    with strategy_call(strategy, "select_patches", tokens.pixels):
        selection = strategy.select_patches(tokens)
    check_is_selection(strategy, "select_patches", selection, tokens.n_visual)
    return selection


def in_order(row: Row, selections: list[Selection]) -> list[Selection]:
    """Selections over the visual tokens of every image in raster order, as selections over those that the model has."""
    if row.places is None:
        return selections
    in_row, start = [], 0
    for chosen in selections:
        places = row.places[start : start + chosen.n_visual] - start
        kept = places.argsort()[chosen.kept.to(places.device)].sort().values.to(chosen.kept.device)
        scores = None if chosen.scores is None else chosen.scores[places.to(chosen.scores.device)]
        in_row.append(replace(chosen, kept=kept, scores=scores))
        start += chosen.n_visual
    return in_row
