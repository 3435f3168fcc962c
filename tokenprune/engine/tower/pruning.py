"""The hooks on a vision tower that drops patches: what is the same for a batch of tiles and for one row.

before_tower   a call begins; a PatchStrategy selects which visual tokens are encoded at all
before_layer   the arguments of an encoder layer are cut to what is left
after_capture  the queries, keys and values of a layer are complete: a TowerStrategy selects, tile by tile
after_tower    the tower's output gets a place for every patch again
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, Generic, TypeVar, cast

from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import CHECKPOINTED, named_arguments
from tokenprune.adapters.towers.attention import Projected
from tokenprune.adapters.towers.layers import BatchLayers, RowLayers
from tokenprune.engine.call import CallContext
from tokenprune.engine.patch import Register, dynamo_disabled
from tokenprune.engine.tower.call import TowerCall
from tokenprune.engine.tower.tiles import TileSelection, changes, check_runs_pruned
from tokenprune.errors import PruningError
from tokenprune.strategy import Strategy

Call = TypeVar("Call", bound=TowerCall)
Layers = TypeVar("Layers", BatchLayers, RowLayers)


class TowerPruning(ABC, Generic[Call, Layers]):
    """Lets a strategy select in the vision tower, and shortens the input of the tower's layers.

    between: the layers between which a TowerStrategy selects; None if the strategy only selects before them.
    after: the numbers of the layers after which it selects.
    """

    def __init__(self, strategy: Strategy, adapter: ModelAdapter, between: Layers | None, context: CallContext) -> None:
        self.strategy, self.adapter, self.between, self._context = strategy, adapter, between, context
        self._selecting, self._n_points = None, 0
        self.after: tuple[int, ...] = ()
        if between is not None:
            self._selecting = TileSelection(strategy, adapter, between)
            self.after = self._selecting.after
            self._n_points = len(between.capture_points(self.after[0]))

    @property
    def call(self) -> Call | None:
        """The call of the tower in progress."""
        return cast("Call | None", self._context.encodings.tower)

    def end(self) -> Call | None:
        """End the call of the tower in progress, and return it."""
        call, self._context.encodings.tower = self.call, None
        return call

    def register(self, register: Register) -> list[nn.Module]:
        """Register the hooks; return the modules that expose attention. The recorder's hooks on the tower come first:
        they read what was dropped."""
        captured: list[nn.Module] = []
        for tower in self.adapter.vision_towers:
            register(tower.register_forward_pre_hook(self.before_tower, with_kwargs=True))
            register(tower.register_forward_hook(self.after_tower))
        for number in self.after:
            points = {} if self.between is None else self.between.capture_points(number)
            for name, module in points.items():
                register(module.register_forward_hook(partial(self.after_capture, name)))
                captured.append(module)
        self.register_layers(register)
        return captured

    @abstractmethod
    def register_layers(self, register: Register) -> None:
        """Register what shortens the arguments of the layers."""

    @abstractmethod
    def begin(self, tower: nn.Module, arguments: Mapping[str, Any]) -> Call:
        """Begin a call of a tower with these arguments."""

    @abstractmethod
    def project(self, call: Call, layer: int) -> Projected:
        """The queries, keys and values of a layer, from what was captured of it."""

    @dynamo_disabled
    def before_tower(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._context.encodings.tower = None
        if self._context.encodings.now is None and CHECKPOINTED not in self.adapter.vision_tower._modules:
            return  # another model's call or the user's own, and not a backward pass that runs the tower again
        check_runs_pruned(self.strategy, module)
        if self._selecting is not None:
            self._selecting.check_kernel()
        self._context.encodings.tower = self.begin(module, named_arguments(module, args, kwargs))

    @dynamo_disabled
    def after_capture(self, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        call = self.call
        if call is None or call.layer is None:  # as in a backward pass that runs the layer again
            return
        call.captured[name] = output.detach()
        if len(call.captured) == self._n_points:  # now, while a CPU has them in its cache
            self._select(call, call.layer)
            call.layer, call.captured = None, {}

    @abstractmethod
    def after_tower(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The output of a tower, completed; None if it needs no change."""

    def runs_again(self, *others: str) -> PruningError:
        """The error for an encoder layer that the backward pass runs again. others: further remedies."""
        where = "before" if self.between is None else "inside"
        *first, last = "Switch it off", *others
        ways = f"{', '.join(first)}, or {last}" if first else last
        return PruningError(
            f"{type(self.strategy).__name__} prunes {where} the vision tower, and activation checkpointing runs "
            f"encoder layers again in the backward pass. {ways}."
        )

    def _select(self, call: Call, layer: int) -> None:
        """Let the strategy select which visual tokens of each tile to keep after `layer`."""
        assert self._selecting is not None
        kept = [
            None if parts is None else self._selecting.select(layer, number, tile, *parts)
            for number, (tile, parts) in enumerate(call.split(self.project(call, layer)))
        ]
        if any(map(changes, kept)):
            call.keep(kept)
