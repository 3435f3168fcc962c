"""Captures the queries and keys of the decoder layers whose attention stages read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.decoder.attention import text_capture_points
from tokenprune.engine.call import CallContext
from tokenprune.engine.compiling import dynamo_disabled
from tokenprune.engine.recording import Register


class TextCapture:
    """Hooks on the attention of some decoder layers; idle in every forward in which no stage is decided.

    active_forwards: one entry for each forward of any thread that decides stages; cheaper to ask than the thread's own
        state, in every decode step.
    """

    def __init__(
        self, adapter: ModelAdapter, layers: Sequence[int], context: CallContext, active_forwards: list[None]
    ) -> None:
        self.adapter, self.layers = adapter, layers
        self._context, self._active_forwards = context, active_forwards

    def register(self, register: Register) -> list[nn.Module]:
        """Register the hooks; return the modules that show attention."""
        captured = []
        for layer in self.layers:
            point = text_capture_points(self.adapter.layers[layer])
            before = partial(self.before_attention, layer)
            register(point.attention.register_forward_pre_hook(before, with_kwargs=True))
            for name, module in point.outputs.items():
                register(module.register_forward_hook(partial(self.after_capture, layer, name)))
            captured += [point.attention, *point.outputs.values()]
        return captured

    @property
    def _captured(self) -> dict[int, dict[str, Any]] | None:
        forward = self._context.forward
        stages = None if forward is None else forward.stages
        return None if stages is None or stages.entry is None else stages.captured

    @dynamo_disabled
    def before_attention(self, layer: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._active_forwards and (captured := self._captured) is not None:
            captured[layer] = {"attention": kwargs}

    @dynamo_disabled
    def after_capture(self, layer: int, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        if self._active_forwards and (captured := self._captured) is not None:
            captured[layer][name] = output.detach()
