"""Asks a PatchStrategy which visual tokens of an image to encode at all."""

from __future__ import annotations

from tokenprune.engine.select import no_selection
from tokenprune.selection import Selection
from tokenprune.selection.precision import without_autocast
from tokenprune.strategy import PatchStrategy
from tokenprune.tokens.tower import PatchTokens


def selected_patches(strategy: PatchStrategy, tokens: PatchTokens) -> Selection:
    """What the strategy leaves of one image before the tower. Raises PruningError for anything but a Selection."""
    with without_autocast(tokens.pixels.device):
        selection = strategy.select_patches(tokens)
    if not isinstance(selection, Selection) or selection.n_visual != tokens.n_visual:
        raise no_selection(f"{type(strategy).__name__}.select_patches", tokens.n_visual)
    return selection
