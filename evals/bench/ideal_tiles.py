"""The ideal of pruning between the layers of a vision tower that takes a batch of tiles.

Each layer gets the first patches of every tile, in the proportion of the image's visual tokens that the schedule has
left. Where several patches make a visual token, the missing ones come back as zeros: the model merges what the tower
returns by row and column.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import ceil
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tokenprune.adapters import ModelAdapter
from tokenprune.adapters.towers.layers import BatchLayers, restore_patches


class TileCuts:
    """What each layer of a tower gets.

    counts: the visual tokens of an image in each layer.
    """

    def __init__(self, adapter: ModelAdapter, layers: BatchLayers, counts: Sequence[int]) -> None:
        self._tower, self._layers, self._counts = adapter.vision_tower, layers.layers, counts
        self._n_prefix, self._length = adapter.tower.n_prefix, 0
        self._merged = layers.patches is not None

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Cut the input of the tower's layers, and complete its output."""
        with ExitStack() as hooks:
            for number, layer in enumerate(self._layers):
                hooks.callback(layer.register_forward_pre_hook(partial(self._before_layer, number)).remove)
            if self._merged:
                hooks.callback(self._tower.register_forward_hook(self._after_tower).remove)
            yield

    def _before_layer(self, number: int, module: nn.Module, args: Any) -> Any:
        hidden, *others = args
        if number == 0:
            self._length = hidden.shape[1]
        n_patches = self._length - self._n_prefix
        length = self._n_prefix + ceil(n_patches * self._counts[number] / self._counts[0])
        return (hidden[:, :length].contiguous(), *others) if length < hidden.shape[1] else None

    def _after_tower(self, module: nn.Module, args: Any, output: Any) -> Any:
        return restore_patches(output, len(self._layers), self._complete)

    def _complete(self, layer: int, hidden: Tensor) -> Tensor:
        return F.pad(hidden, (0, 0, 0, self._length - hidden.shape[1]))
