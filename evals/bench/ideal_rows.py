"""The ideal of pruning before or between the layers of a vision tower that takes the patches of all images in one row.

Each layer gets the first visual tokens of every image, in the layers' own order, as many as the schedule says. Which
ones affects the time if layers attend within windows: the first ones fill fewer windows than the same number spread
over the image, so no choice is faster.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from tokenprune.adapters import ModelAdapter
from tokenprune.adapters.conventions import named_arguments
from tokenprune.adapters.towers.row import Row
from tokenprune.engine.tower.row import RowCut


class RowCuts:
    """What each layer of one call gets, computed before the clock starts.

    inputs: the model's, whose images the tower gets. counts: the visual tokens of an image in each layer.
    """

    def __init__(self, adapter: ModelAdapter, inputs: Mapping[str, Any], counts: Sequence[int]) -> None:
        described, tower = adapter.tower.row, adapter.vision_tower
        assert described is not None
        self._layers, self._output_modules = adapter.tower.layers(tower), described.output_modules(tower)
        row = described.of_call({"grid_thw": inputs["image_grid_thw"]}, tower.config)
        cuts = {count: RowCut(row, first_tokens(row, count)) for count in counts}
        whole = torch.ones(sum(map(prod, row.images)), dtype=torch.bool, device=row.tokens.device)
        self._cuts = [cuts[count] for count in counts]
        self._now = self._cuts[0]
        self._places = [_places(before, after) for before, after in pairwise([RowCut(row, whole), *self._cuts])]

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Cut the input of the tower's layers, and complete its output."""
        with ExitStack() as hooks:
            for number, layer in enumerate(self._layers):
                hook = layer.register_forward_pre_hook(partial(self._before_layer, number), with_kwargs=True)
                hooks.callback(hook.remove)
            for module in self._output_modules:
                hooks.callback(module.register_forward_hook(self._after_exit).remove)
            yield

    def _before_layer(self, number: int, module: nn.Module, args: Any, kwargs: Any) -> Any:
        cut, places = self._cuts[number], self._places[number]
        self._now = cut
        if len(cut.patches) == cut.n_all:
            return None
        hidden, *_ = args
        if isinstance(places, Tensor):
            hidden = hidden.index_select(-2, places.to(hidden.device))
        else:
            hidden = hidden.narrow(-2, 0, places)
        return (hidden,), cut.arguments(named_arguments(module, args, kwargs))

    def _after_exit(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Add zeros for missing tokens, because the base model expects a row for each."""
        return self._now.whole(output)


def first_tokens(row: Row, count: int) -> Bool[Tensor, " visual"]:
    """Mark the first `count` visual tokens of every image, in the order of the layers."""
    in_layers = row.tokens if row.order is None else row.tokens[row.order]
    n_visual, places = sum(map(prod, row.images)), torch.arange(len(in_layers), device=in_layers.device)
    begins = places.new_zeros(n_visual).scatter_reduce(0, in_layers, places, "amin", include_self=False)
    kept, start = torch.zeros(n_visual, dtype=torch.bool, device=in_layers.device), 0
    for grid in row.images:
        kept[start + begins[start : start + prod(grid)].argsort()[:count]] = True
        start += prod(grid)
    return kept


def _places(before: RowCut, after: RowCut) -> int | Int[Tensor, " patches"]:
    """The places of the later cut's patches in the earlier one; only their number if they are the first ones."""
    places = torch.searchsorted(before.patches, after.patches)
    first = torch.equal(places, torch.arange(len(places), device=places.device))
    return len(places) if first else places
