"""The generic adapter for families whose vision tower and grids are known too."""

from __future__ import annotations

from typing import Any

from torch import nn

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.errors import UnsupportedError


class ToweredAdapter(GenericAdapter):
    """A family says how its tower is read (`describe_tower`), and which `layouts` its images have."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        if self.vision_tower is None:
            raise UnsupportedError(
                f"{type(model).__name__} without a vision tower has no visual tokens to prune. Load the whole model, "
                f"for instance with {type(model).__name__}.from_pretrained(...)."
            )
        self.tower = self.describe_tower()

    @property
    def vision_tower(self) -> Any:
        return getattr(self.core, "vision_tower", None)

    @property
    def vision_towers(self) -> tuple[Any, ...]:
        return (self.vision_tower,)

    @property
    def offers(self) -> frozenset[str]:
        return super(GenericAdapter, self).offers
