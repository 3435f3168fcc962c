"""The time that the hooks of a model take, all together, and what else a patch does when its layers are called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from tokenprune.engine.stages.layers import StagedLayer
from tokenprune.evals.bench.stopwatch import Stopwatch


class HookTime:
    """Adds up what hooks take. One that runs within another, for it calls a module that has hooks, counts once."""

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
    """Time the hooks that `model` has now, whosoever they are, and what cuts its decoder layers' arguments, in a `with`
    block."""
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
