"""Images that are normalised with halves, before a stand-in whose own family normalises them otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

#: Settings of an image processor.
HALVES: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def read_halves(model: Any, adapter: Any) -> None:
    """Make the colours of this model's images, which tokenprune reads with this class of adapter, those of images that
    are normalised with halves."""
    from tokenprune.adapters.towers import Tower

    of_family = adapter.describe_tower

    def describe_tower(self: Any) -> Tower:
        tower = of_family(self)
        return replace(tower, normalisation=tuple(map(tuple, HALVES.values()))) if self.model is model else tower

    adapter.describe_tower = describe_tower
