"""Finds the Tower for a vision encoder: one of ours, one that was registered, or one of an installed package."""

from __future__ import annotations

from tokenprune.adapters.towers.tower import Tower
from tokenprune.entry_points import entry_points_of, load_entry_point, warn_of_namesakes
from tokenprune.errors import UnsupportedError

#: Entry points of other distributions, each named after a model_type.
GROUP = "tokenprune.towers"
TOWERS: dict[str, Tower] = {}


def register_tower(model_type: str, tower: Tower) -> Tower:
    """Register how vision encoders with this `config.model_type` are read; works from any package. The last one
    registered counts. Returns `tower`."""
    TOWERS[model_type] = tower
    return tower


def tower_of(model_type: str, owner: str) -> Tower:
    """Return the Tower for a vision config's model_type. `owner` names the model in the error.

    An installed package's tower is only imported for a type that is not registered. Warns if a package has a tower for
    a registered type; the registered one is used. Raises UnsupportedError for an unknown type.
    """
    if model_type in TOWERS:
        tower = TOWERS[model_type]
        warn_of_namesakes(
            GROUP,
            model_type,
            tower,
            f"a vision tower for {model_type}",
            lambda entry: (
                f"For theirs, import {entry.attr} from {entry.module}, and register_tower({model_type!r}, it)."
            ),
        )
        return tower
    installed = entry_points_of(GROUP)
    if model_type not in installed:
        raise UnsupportedError(
            f"{owner} has a {model_type!r} vision tower, whose visual tokens tokenprune cannot place on a grid. "
            f"Supported: {', '.join(sorted({*TOWERS, *installed}))}. Add one with "
            f"tokenprune.adapters.register_tower({model_type!r}, Tower(...)), see adapters/README.md."
        )
    found = load_entry_point(
        installed[model_type],
        f"the vision tower for {model_type}",
        lambda tower: isinstance(tower, Tower),
        "a tokenprune.adapters.Tower",
    )
    return register_tower(model_type, found)
