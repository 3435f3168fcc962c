"""Attention over a row of patches, some of which stand for several: the log of how many is added to their logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tokenprune.engine.arguments import bind_arguments
from tokenprune.engine.overrides import ForwardOverride

#: The argument of a layer that holds the bias of each patch's key. Layers hand on what they do not know to their
#: attention, also when activation checkpointing runs them again.
KEY_BIAS = "key_bias"


class ProportionalAttention(ForwardOverride):
    """Overrides the forward of an attention module that takes no mask: with `KEY_BIAS` it is its adapter's `attend`."""

    def __init__(self, attention: nn.Module, attend: Callable[..., Any]) -> None:
        super().__init__(attention)
        self._attend = attend

    def override(self, *args: Any, **kwargs: Any) -> Any:
        bias: Tensor | None = kwargs.pop(KEY_BIAS, None)
        if bias is None:
            return self.original(*args, **kwargs)
        named = bind_arguments(self.original, args, kwargs)
        parts = (named[name] for name in ("hidden_states", "cu_seqlens", "position_embeddings"))
        return self._attend(self._module, *parts, bias)
