"""The setting `skip` of strategies that skip decoder layers."""

from __future__ import annotations

from typing import Any

from tokenprune.checks import is_integer
from tokenprune.errors import SettingError

#: Decoder layers at either end that are never skipped.
ENDS = 2


def checked_skip(owner: str, skip: Any) -> int | tuple[int, ...]:
    """Return the setting `skip`: decoder layers, counted from 0 and ascending, as `tokenprune layers` finds them for a
    model with a few unlabelled questions; or a count, which skips that many layers right before the last two. Raises
    SettingError for anything else."""
    skip = tuple(skip) if isinstance(skip, list) else skip  # settings files have lists
    if all(is_integer(n) and n >= 0 for n in (skip if isinstance(skip, tuple) else (skip,))):
        return skip
    raise SettingError(
        f"{owner}: skip={skip!r} does not name decoder layers. Write skip=(7, 9) for layers 7 and 9, or a count: "
        f"skip=2."
    )


def layers_to_skip(owner: str, skip: Any, n_layers: int) -> tuple[int, ...]:
    """Return the decoder layers that a checked `skip` names. The first two and the last two of the `n_layers` cannot be
    skipped: SettingError."""
    last = n_layers - ENDS
    layers = tuple(range(max(last - skip, 0), last)) if isinstance(skip, int) else skip  # a count may exceed n_layers
    if any(not ENDS <= layer < last for layer in layers):
        between = f"choose from {ENDS}..{last - 1}" if last > ENDS else "this model has no others"
        raise SettingError(
            f"{owner}: skip={skip!r} reaches into the first or last {ENDS} of {n_layers} decoder layers, which are "
            f"never skipped; {between}."
        )
    return layers
