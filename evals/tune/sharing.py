"""One run of the vision tower for all setups with the same images.

A patch reads attention through hooks on modules of the tower, so the tower's output alone is not enough. The calls of
those modules are recorded in the first run and replayed, with their recorded results, whenever the tower is called with
the same pixels: every hook sees what it would have seen.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.adapters import adapter_for
from tokenprune.adapters.towers.layers import early_layer
from tokenprune.evals.models.overrides import overridden_forward
from tokenprune.strategy import Strategy, TowerStrategy


@dataclass
class Call:
    """A call of a module. `output` is filled in when it returns; calls inside it come later in a list."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any = None


class SharedTower:
    """A vision tower's forward that remembers its last calls.

    modules: those that may have hooks. remembered: how many calls.
    """

    def __init__(self, tower: nn.Module, modules: Sequence[nn.Module], remembered: int) -> None:
        self._forward, self._modules = tower.forward, modules
        self._remembered = remembered
        self._calls: list[tuple[Call, list[Call]]] = []  # each with the calls inside it; the newest last
        self._inside: list[Call] = []
        self._tower = tower

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        now = args, kwargs
        stored = next((known for known in self._calls if _same(now, (known[0].args, dict(known[0].kwargs)))), None)
        if stored is None:
            del self._calls[: max(0, 1 + len(self._calls) - self._remembered)]  # freed before the next ones are made
            self._inside = []
            with ExitStack() as overridden:
                for module in self._modules:
                    overridden.enter_context(overridden_forward(module, self._recording(module)))
                stored = Call(self._tower, args, kwargs, self._forward(*args, **kwargs)), self._inside
        else:
            self._calls = [known for known in self._calls if known is not stored]
            for call in stored[1]:
                with overridden_forward(call.module, _returning(call)):
                    call.module(*call.args, **call.kwargs)
        self._calls.append(stored)
        return copy(stored[0].output)  # models modify the object they get

    @property
    def __signature__(self) -> inspect.Signature:  # patches use it to name a call's arguments
        return inspect.signature(self._forward)

    def _recording(self, module: nn.Module) -> Any:
        forward = module.forward

        @wraps(forward)
        def record(*args: Any, **kwargs: Any) -> Any:
            call = Call(module, args, kwargs)
            self._inside.append(call)
            call.output = forward(*args, **kwargs)
            return call.output

        return record


def _returning(call: Call) -> Any:
    @wraps(call.module.forward)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        return call.output

    return recorded


def shares(strategy: Strategy) -> bool:
    """Whether a strategy leaves the tower's output as it is."""
    return not isinstance(strategy, TowerStrategy)


@contextmanager
def shared_encoder(model: Any, strategies: Iterable[Strategy], remembered: int = 1) -> Iterator[None]:
    """Let calls of the model with the same images share one run of its vision tower in a `with` block, in which it may
    be patched with any of the `strategies`, one after the other. The outputs for the last
    `remembered` batches stay in memory."""
    adapter = adapter_for(model)
    strategies = list(strategies)
    layers = {strategy.attention_layer for strategy in strategies if "vision_attention" in strategy.needs}
    layers |= {early_layer(adapter, one.early_layer) for one in strategies if "early_attention" in one.needs}
    points = [point for layer in layers for point in adapter.capture_points(layer)]
    modules = list(dict.fromkeys(module for point in points for module in (point.attention, *point.outputs.values())))
    if any("late_features" in strategy.needs & adapter.offers for strategy in strategies):
        modules += [layer for tower in adapter.vision_towers for layer in adapter.tower.late_layers(tower)]
    with ExitStack() as overridden:
        for tower in adapter.vision_towers:
            inside = set(tower.modules())
            shared = SharedTower(tower, [module for module in modules if module in inside], remembered)
            overridden.enter_context(overridden_forward(tower, shared))
        yield


def _same(one: Any, other: Any) -> bool:
    """Whether two calls have equal arguments."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or (
            one.shape == other.shape
            and one.dtype == other.dtype
            and one.device == other.device
            and torch.equal(one, other)
        )
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(_same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    return type(one) is type(other) and one == other
