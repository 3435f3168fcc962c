"""Seconds between named moments, on a GPU as its stream reaches them, and the time that a model's hooks take."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tokenprune.engine.stages.pruning import StagedLayer


class Stopwatch:
    """Named moments, and the seconds between any two. A repeated name is the later moment.

    On a GPU a moment is an event in its stream; only the constructor and `between` wait for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._moments: dict[str, Any] = {}
        self._synchronise()

    def mark(self, name: str) -> None:
        if not self._cuda:
            self._moments[name] = time.perf_counter()
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._moments[name] = event

    def between(self, first: str, last: str) -> float:
        start, end = self._moments[first], self._moments[last]
        if not self._cuda:
            return end - start
        self._synchronise()
        return start.elapsed_time(end) / 1e3

    def _synchronise(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


class HookTime:
    """Adds up the time that hooks take. Nested hooks count once."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self._n, self._depth = 0, 0

    def timed(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if self._depth:
                return hook(*args)
            self._watch.mark(f"hook {self._n} begins")
            self._depth += 1
            try:
                return hook(*args)
            finally:
                self._depth -= 1
                self._watch.mark(f"hook {self._n} ends")
                self._n += 1

        return call

    def seconds(self) -> float:
        return sum((self._watch.between(f"hook {i} begins", f"hook {i} ends") for i in range(self._n)), 0.0)


@contextmanager
def timed_hooks(model: nn.Module, watch: Stopwatch) -> Iterator[HookTime]:
    """Time all hooks that `model` has now, and the narrowing of its decoder layers' arguments, in a `with` block."""
    time, originals = HookTime(watch), []
    layers = [vars(module).get("forward") for module in model.modules()]
    staged = {id(layer.stages): layer.stages for layer in layers if isinstance(layer, StagedLayer)}.values()
    for stages in staged:
        stages.before_layer = time.timed(stages.before_layer)
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in hooks.items():
                originals.append((hooks, key, hook))
                hooks[key] = time.timed(hook)
    try:
        yield time
    finally:
        for hooks, key, hook in originals:
            hooks[key] = hook
        for stages in staged:
            del stages.before_layer
