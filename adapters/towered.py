"""Base classes for families whose vision tower is known: described by the family, convolutional, with few layers that
compare all patches, or with the patches of all images in one row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence, Set
from typing import Any

from torch import nn

from tokenprune.adapters.base import Vision
from tokenprune.adapters.generic import InterfaceAdapter
from tokenprune.adapters.layouts.shrunk import ShrunkArguments, shrunk_row
from tokenprune.adapters.towers import Tower
from tokenprune.encoded import Modality
from tokenprune.errors import UnsupportedError


class KnownTowerAdapter(InterfaceAdapter):
    """For a family that says how its tower is read (`describe_tower`), and which `layouts` its images have."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.tower = self.known_tower()


class ConvolutionalAdapter(InterfaceAdapter):
    """For a family whose vision tower is convolutional, and may attend in its last layers (`find_attention`)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        attention = self.find_attention(self.vision_tower)
        self._attends = attention is not None
        if attention is not None:
            self.tower = attention

    @abstractmethod
    def find_attention(self, vision: Any) -> Tower | None:
        """Return how the attention of a tower is read; None if it has none that fits the visual tokens."""

    @property
    def vision_towers(self) -> tuple[Any, ...]:
        return super().vision_towers if self._attends else ()

    @property
    def offers(self) -> Set[str]:
        return super().offers if self._attends else self.offers_without_tower | {"grid"}

    def why_not(self, statistic: str) -> str | None:
        if statistic in ("vision_attention", "early_attention", "colors"):
            return f"its vision tower ({type(self.vision_tower).__name__}) is read as convolutional throughout"
        return super().why_not(statistic)


class GlobalLayersMixin(Vision):
    """For a family in which only some encoder layers compare all patches of an image."""

    #: What each of the other layers does instead, for errors.
    local_layer_reason = "attends within small windows"

    @property
    @abstractmethod
    def global_layers(self) -> Sequence[int]:
        """The layers that compare all patches, in ascending order."""

    def encoder_layer(self, layer: int | None) -> int:
        readable, n_layers = self.global_layers, len(self.tower.layers(self.vision_tower))
        if not readable:
            raise UnsupportedError(
                f"no layer of this vision tower compares the patches of an image: each of its {n_layers} layers "
                f"{self.local_layer_reason}. Use a strategy that reads no vision attention, such as Grid or DivPrune."
            )
        if layer is not None and -n_layers <= layer < n_layers and layer % n_layers not in readable:
            raise UnsupportedError(
                f"layer={layer} of this vision tower {self.local_layer_reason}, so it does not compare the patches of "
                f"an image. Write layer=None for the last layer that does, or one of {', '.join(map(str, readable))}."
            )
        return super().encoder_layer(layer)

    def consumed_layer(self, n_layers: int) -> int:
        """The last layer that compares all patches."""
        return max(self.global_layers)


class RowMixin(Vision):
    """For a family that gets the patches of all images in one row, each patch channel after channel, with their grids,
    from which `layouts` are read."""

    unshrunk = None
    #: Whether the patches of a visual token are adjacent in the row, instead of every frame in raster order.
    folded: bool = True

    def shrink(self, modality: Modality, arguments: Mapping[str, Any], budgets: Sequence[int]) -> ShrunkArguments:
        layouts, patch = self.layouts(modality, arguments, None), self.vision_tower.config.patch_size
        return shrunk_row(modality, arguments, budgets, layouts, patch, self.folded)
