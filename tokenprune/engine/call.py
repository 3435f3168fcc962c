"""What a call of a patched model knows while it lasts, and how its arguments are named."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from tokenprune.engine.forward import Forward
    from tokenprune.engine.recording import Encoding
    from tokenprune.engine.tower import TowerCall
    from tokenprune.sequence.packing import Packing
    from tokenprune.tokens.encoded import EncodedImage


class CallContext(threading.local):
    """The call in progress, one per thread. `drop` is the only way out: nothing of a call is reset piece by piece.

    encoding: the call of a feature function; None outside of one.
    tower: the call of the vision tower, if the strategy prunes there.
    records: the images that the model got already encoded, by modality.
    unprunable: arguments of the model that only fit the unpruned sequence.
    forward: the call of the base model, if it has images or a pruned cache.
    packing: which columns the last logits are of; None if of all. The loss is computed after the base model has
        returned, so this one outlives the call.

    A copy or pickle of it is empty.
    """

    def __init__(self) -> None:
        self.encoding: Encoding | None = None
        self.tower: TowerCall | None = None
        self.packing: Packing | None = None
        self.drop()

    def drop(self) -> None:
        """Forget the call, except for `packing`."""
        self.records: dict[str, list[EncodedImage]] = {}
        self.unprunable: list[str] = []
        self.forward: Forward | None = None

    def __reduce__(self) -> tuple[type[CallContext], tuple[()]]:
        return type(self), ()


def named_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a module's call by name, in a new dict."""
    return bind_arguments(module.forward, args, kwargs) if args else dict(kwargs)


def bind_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, those that ** catches included."""
    signature = inspect.signature(function)
    named = dict(signature.bind_partial(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    return named


def n_new_columns(kwargs: Mapping[str, Any]) -> int:
    """Return how many columns a call of the base model brings."""
    new = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
    return new.shape[1]
