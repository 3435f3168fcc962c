"""How visual tokens lie in an image, and how a model's vision tower is read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.base.parts import Parts
from tokenprune.adapters.towers.heads import QueryKey
from tokenprune.adapters.towers.layers import TowerLayers
from tokenprune.errors import UnsupportedError
from tokenprune.tokens.encoded import CapturePoints, Modality
from tokenprune.tokens.layout import Layout


class Vision(Parts):
    """Which layout does each image have, and which statistics are available?"""

    @abstractmethod
    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        """The layout of every image that one call of the modality's encoding function encoded, from its arguments by
        name and its output."""

    @property
    def offers(self) -> frozenset[str]:
        """The available statistics, by their names in `tokenprune.tokens.visual.STATISTICS`."""
        everywhere = {"vision_attention", "text_attention", "pixels", "colors"}
        cls, left = {"cls"} if self.tower.n_prefix else set(), {"left_in_tower"} if self.tower_layers else set()
        return frozenset(everywhere | cls | left)

    @property
    def tower_layers(self) -> TowerLayers | None:
        """The encoder layers between which patches may be dropped; None if they may not."""
        return None

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        """The tiles in a call of a vision tower, one by one."""
        return list(arguments[next(name for name in ("pixel_values", "hidden_states") if name in arguments)])

    def consumed_layer(self, n_layers: int) -> int:
        """The encoder layer whose output the projector gets, of `n_layers`."""
        return n_layers - 1

    def encoder_layer(self, layer: int | None) -> int:
        """The index of the encoder layer that a strategy's `layer` means; None means the layer whose output the
        projector gets. Raises UnsupportedError for a layer that does not exist or cannot be read."""
        n_layers = len(self.tower.layers(self.vision_tower))
        if layer is None:
            layer = self.consumed_layer(n_layers)
        if not -n_layers <= layer < n_layers:
            raise UnsupportedError(
                f"layer={layer} is not in the vision tower, whose layers are 0..{n_layers - 1} (or -1 for the last)."
            )
        return layer

    def capture_points(self, layer: int | None) -> list[CapturePoints]:
        """The modules that expose one encoder layer's attention, for each of `vision_towers`. Raises UnsupportedError
        for a layer that does not exist."""
        number = self.encoder_layer(layer)
        return [self.tower.capture_points(self.tower.layers(tower)[number]) for tower in self.vision_towers]

    def tile_heads(self, call: Mapping[str, Any]) -> QueryKey:
        """Queries and keys of every tile in a call of a vision tower, as its attention multiplies them.

        `call` holds the outputs of the capture points by name, the arguments of the attention under "attention" and
        those of the tower under "tower".
        """
        return self.tower.heads(call, self.vision_tower.config)
