"""Where the parts of a model are."""

from __future__ import annotations

from abc import ABC
from typing import Any, cast

from torch import nn

from tokenprune.adapters.decoder.config import Decoder
from tokenprune.adapters.towers import Tower, tower_of


class Parts(ABC):
    """Where are the parts?

    model, config: the loaded model and its configuration.
    tower: how its vision tower is read.
    decoder: how its language model attends.
    """

    model: nn.Module
    config: Any
    tower: Tower
    decoder: Decoder

    @property
    def core(self) -> Any:
        """The base model, whose forward inserts the visual features and calls the language model."""
        return getattr(self.model, "model", None)

    @property
    def language_model(self) -> nn.Module:
        """The decoder without its head."""
        return self.core.language_model

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers."""
        return cast(Any, self.language_model).layers

    @property
    def vision_tower(self) -> Any:
        """The module that is called with the images; None if the model was loaded without it."""
        return getattr(self.core, "vision_tower", None)

    @property
    def vision_towers(self) -> tuple[Any, ...]:
        """Every module that is called with images or videos; several are of one kind."""
        return (self.vision_tower,)

    def describe_tower(self) -> Tower:
        """Return how the vision tower is read. Raises UnsupportedError for an unknown kind."""
        return tower_of(self.vision_tower.config.model_type, type(self.model).__name__)

    @property
    def description(self) -> str:
        """The model in a few words, for error messages."""
        return f"{type(self.model).__name__} with a {self.vision_tower.config.model_type} tower"
