"""Captures the queries and keys of the decoder layers whose attention stages read: while such a layer runs, or, for a
stage that looks ahead, from a run of the layer that ends once its keys are known. And reads the attention from
what was captured.

The modules' forward is overridden rather than hooked, so that a decode step, which captures nothing, costs almost
nothing extra, and a compiled one has no graph breaks there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.decoder.attention import (
    query_projection,
    text_attention_scale,
    text_capture_points,
    text_heads,
    text_rotation,
    text_values,
)
from tokenprune.engine.call import CallContext
from tokenprune.engine.patch import ForwardOverride, Register, dynamo_disabled
from tokenprune.engine.stages.forward import StagedForward, forward_replaced
from tokenprune.strategy import Stage
from tokenprune.tokens.stages import TextAttention

#: What is captured of a layer that is about to be entered.
AHEAD = {"attention", "queries", "keys"}


class TextCapture:
    """Overrides in the attention of the decoder layers that stages read; idle in every forward in which no stage is
    decided.

    active_forwards: one entry per forward, of any thread, that decides stages; cheaper to check in every decode step
        than the thread's own state.
    """

    def __init__(
        self, adapter: ModelAdapter, stages: Sequence[Stage], context: CallContext, active_forwards: list[None]
    ) -> None:
        self.adapter, self.layers = adapter, list(dict.fromkeys(stage.read_layer for stage in stages))
        self._ahead = {stage.layer for stage in stages if stage.looks_ahead}
        self._running = {stage.read_layer for stage in stages if not stage.looks_ahead}
        self.active_forwards, self._context = active_forwards, context
        self._parts: dict[int, set[str]] = {}

    def register(self, register: Register) -> list[nn.Module]:
        """Install the overrides; return the modules that expose attention."""
        captured = []
        for layer in self.layers:
            point = text_capture_points(self.adapter.layers[layer])
            if layer in self._ahead:
                register(LastQuery(query_projection(self.adapter.layers[layer]), self).install())
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

    def look_ahead(
        self, now: StagedForward, layer: int, valid: Bool[Tensor, "batch tokens"], enter: Callable[[], Any]
    ) -> dict[str, Any]:
        """Return what is captured of a layer that is about to be entered, without its values, and with the query of
        each row's last `valid` token in place of all queries.

        enter: runs the layer on the tokens that enter it. Raises PruningError if the layer's overrides are gone.
        """
        now.asking = (torch.arange(valid.shape[1], device=valid.device) * valid).amax(1)
        try:
            with torch.no_grad():
                enter()
        except _KeysKnown:
            return now.captured.pop(layer)
        finally:
            now.asking = None
        raise forward_replaced(layer)

    def _forward(self, layer: int) -> StagedForward | None:
        """The forward in which a layer is to be captured now."""
        forward = self._context.forward
        now = None if forward is None else forward.stages
        if now is None or now.entry is None or (now.asking is None and layer not in self._running):
            return None
        return now

    @dynamo_disabled
    def before_attention(self, layer: int, kwargs: dict[str, Any]) -> None:
        if (now := self._forward(layer)) is not None:
            now.captured[layer] = {"attention": kwargs}

    @dynamo_disabled
    def after_capture(self, layer: int, name: str, output: Tensor) -> None:
        if (now := self._forward(layer)) is not None:
            parts = now.captured.setdefault(layer, {})
            parts[name] = output.detach()
            if now.asking is not None and parts.keys() >= AHEAD:
                raise _KeysKnown

    @dynamo_disabled
    def project(self, projection: Callable[[Tensor], Tensor], states: Float[Tensor, "batch tokens width"]) -> Tensor:
        """The queries of all tokens; or, while a layer is about to be entered, that of each row's last one for all."""
        forward = self._context.forward
        last = None if forward is None or forward.stages is None else forward.stages.asking
        if last is None:
            return projection(states)
        rows = torch.arange(len(states), device=states.device)
        return projection(states[rows, last.to(states.device), None]).expand(-1, states.shape[1], -1)


class _KeysKnown(Exception):
    """Leaves a layer whose queries and keys are captured before it has attended to anything."""


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


class LastQuery(ForwardOverride):
    """A query projection. While its layer is about to be entered, it projects each row's last token only."""

    def __init__(self, module: nn.Module, capture: TextCapture) -> None:
        super().__init__(module)
        self._capture = capture

    def override(self, states: Tensor, **kwargs: Any) -> Tensor:  # PEFT gives each row's adapter by name
        if self._capture.active_forwards:
            return self._capture.project(partial(self.original, **kwargs), states)
        return self.original(states, **kwargs)


#: Reads a row's attention, given the places of its visual tokens and its text.
RowReader: TypeAlias = Callable[[int, Int[Tensor, " visual"], Int[Tensor, " text"]], TextAttention]


def attention_reader(
    layer: Any,
    call: Mapping[str, Any],
    n_past: int,
    valid: Bool[Tensor, "batch tokens"],
    device: torch.device | None = None,
) -> RowReader:
    """Return a function that reads a row's attention in a decoder layer, given the places of its visual tokens and its
    text there.

    call: what was captured of the layer; without its values if it has not been entered.
    n_past: how many slots the layer's cache held before.
    valid: which of the tokens that the layer saw are neither holes nor padding.
    device: where the attention is read; None means the layer's own.
    """
    ahead = "values" not in call
    parts = (*text_heads(layer, call), text_rotation(layer, call), *([] if ahead else [text_values(layer, call)]))
    queries, keys, rotation, *values = (part if device is None else part.to(device) for part in parts)
    scale, mask, n_new = text_attention_scale(layer), call["attention"].get("attention_mask"), queries.shape[2]

    def read(row: int, visual: Tensor, text: Tensor) -> TextAttention:
        seen = added = None
        if isinstance(mask, Tensor) and mask.ndim == 4:  # over the cache's slots, and a static one's free room
            begin = min(n_past, mask.shape[3] - n_new)  # a layer with a window holds fewer slots
            own = mask[min(row, len(mask) - 1), 0, :, begin : begin + n_new].to(queries.device)
            seen, added = (own, None) if own.dtype == torch.bool else (own > torch.finfo(own.dtype).min / 2, own)
        angles = rotation[:, min(row, rotation.shape[1] - 1)]
        own_heads = queries[row], keys[row]
        real, visual, text = (part.to(queries.device) for part in (valid[row], visual, text))
        own_values = None if ahead else values[0][row]
        return TextAttention(*own_heads, scale, real, visual, text, seen, added, own_values, angles, ahead)

    return read
