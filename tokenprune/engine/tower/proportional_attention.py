"""Attention over a row with merged patches: the log of how many patches each stands for is added to its logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tokenprune.engine.arguments import bind_arguments
from tokenprune.engine.patch import ForwardOverride

#: The argument of a layer that holds the bias of each patch's key. Layers pass arguments that they do not know on to
#: their attention, even when activation checkpointing runs them again.
KEY_BIAS = "key_bias"


class ProportionalAttention(ForwardOverride):
    """Overrides the forward of an attention module that takes no mask: `KEY_BIAS` makes the adapter's `attend` run."""

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
