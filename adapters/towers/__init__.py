"""Vision towers: where their layers and attention are. `register_tower` adds one."""

from tokenprune.adapters.towers import builtin as builtin  # importing it registers the towers
from tokenprune.adapters.towers.registry import TOWERS, register_tower, tower_of
from tokenprune.adapters.towers.tower import Tower

__all__ = ["TOWERS", "Tower", "register_tower", "tower_of"]
