"""Captures the queries and keys of the decoder layers whose attention stages read.

The modules' forward is overridden rather than hooked, so that a decode step, which captures nothing, costs almost
nothing extra, and a compiled one has no graph breaks there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.decoder.attention import text_capture_points
from tokenprune.engine.call import CallContext
from tokenprune.engine.compiling import dynamo_disabled
from tokenprune.engine.overrides.override import ForwardOverride
from tokenprune.engine.patch import Register
from tokenprune.errors import PruningError


class TextCapture:
    """Overrides in the attention of some decoder layers; idle in every forward in which no stage is decided.

    active_forwards: one entry per forward, of any thread, that decides stages; cheaper to check in every decode step
        than the thread's own state.
    """

    def __init__(
        self, adapter: ModelAdapter, layers: Sequence[int], context: CallContext, active_forwards: list[None]
    ) -> None:
        self.adapter, self.layers = adapter, layers
        self.active_forwards, self._context = active_forwards, context
        self._parts: dict[int, set[str]] = {}

    def register(self, register: Register) -> list[nn.Module]:
        """Install the overrides; return the modules that expose attention."""
        captured = []
        for layer in self.layers:
            point = text_capture_points(self.adapter.layers[layer])
            register(CapturedArguments(point.attention, self, layer).install())
            for name, module in point.outputs.items():
                register(CapturedOutput(module, self, layer, name).install())
            captured += [point.attention, *point.outputs.values()]
            self._parts[layer] = {"attention", *point.outputs}
        return captured

    def take(self, captured: dict[int, dict[str, Any]], layer: int) -> dict[str, Any]:
        """Take what was captured of a layer. Raises PruningError if the layer's overrides are gone."""
        taken = captured.pop(layer, {})
        if not self._parts[layer] <= taken.keys():
            raise forward_replaced(layer)
        return taken

    @property
    def _captured(self) -> dict[int, dict[str, Any]] | None:
        forward = self._context.forward
        stages = None if forward is None else forward.stages
        return None if stages is None or stages.entry is None else stages.captured

    @dynamo_disabled
    def before_attention(self, layer: int, kwargs: dict[str, Any]) -> None:
        if (captured := self._captured) is not None:
            captured[layer] = {"attention": kwargs}

    @dynamo_disabled
    def after_capture(self, layer: int, name: str, output: Tensor) -> None:
        if (captured := self._captured) is not None:
            captured.setdefault(layer, {})[name] = output.detach()


def forward_replaced(layer: int) -> PruningError:
    """The error for a decoder layer whose overrides somebody has removed."""
    return PruningError(
        f"decoder layer {layer} was called past this patch, because the forward of its modules was replaced after "
        f"patch(), as accelerate does when hooks are removed or set again. Call patch() again."
    )


class CapturedArguments(ForwardOverride):
    """An attention module whose arguments are captured."""

    def __init__(self, module: nn.Module, capture: TextCapture, layer: int) -> None:
        super().__init__(module)
        self._capture, self._layer = capture, layer

    def override(self, *args: Any, **kwargs: Any) -> Any:
        if self._capture.active_forwards:
            self._capture.before_attention(self._layer, kwargs)
        return self.original(*args, **kwargs)


class CapturedOutput(CapturedArguments):
    """A module within an attention module, whose output is captured."""

    def __init__(self, module: nn.Module, capture: TextCapture, layer: int, name: str) -> None:
        super().__init__(module, capture, layer)
        self._output = name

    def override(self, *args: Any, **kwargs: Any) -> Any:
        output = self.original(*args, **kwargs)
        if self._capture.active_forwards:
            self._capture.after_capture(self._layer, self._output, output)
        return output
