"""Objects that stand in for a method of one model instance: what hooks on modules cannot see.

Objects and not closures, so that a copy or pickle of the model gets a stand-in that belongs to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from tokenprune.engine.call import bound
from tokenprune.sequence.packing import Packing
from tokenprune.tokens.encoded import Modality

IGNORED = -100  # the label that every Hugging Face loss leaves out


@runtime_checkable
class Listener(Protocol):
    """Hears of the calls of feature functions. One that another one calls (videos may be encoded by the function for
    images) is no call of its own: `begin_encoding` is then false."""

    def begin_encoding(self) -> bool: ...

    def end_encoding(self) -> None: ...

    def encoded(self, modality: Modality, arguments: dict[str, Any], output: Any) -> None: ...


class StandIn:
    """Covers an attribute of one module until `remove`, or until somebody else covers it for good."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self._module, self._name = module, name
        self._covered = vars(module).get(name)  # what stood on the instance before

    @property
    def original(self) -> Callable[..., Any]:
        """What it covers."""
        if self._covered is not None:
            return self._covered
        return partial(getattr(type(self._module), self._name), self._module)

    def install(self) -> StandIn:
        setattr(self._module, self._name, self)
        return self

    def remove(self) -> None:
        if vars(self._module).get(self._name) is not self:
            return
        delattr(self._module, self._name)
        if self._covered is not None:
            setattr(self._module, self._name, self._covered)


class FeatureFunction(StandIn):
    """Stands in for a method of the base model that encodes pictures, and tells `listener` of its calls."""

    def __init__(self, core: nn.Module, modality: Modality, listener: Listener) -> None:
        super().__init__(core, modality.function)
        self._modality, self._listener = modality, listener

    @property
    def __signature__(self) -> inspect.Signature:  # `generate` reads which arguments to pass
        return inspect.signature(self.original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._listener.begin_encoding():
            return self.original(*args, **kwargs)
        try:
            output = self.original(*args, **kwargs)
        finally:
            self._listener.end_encoding()
        self._listener.encoded(self._modality, bound(self.__signature__, args, kwargs), output)
        return output


class InnerFeatures(StandIn):
    """Stands in for a method of the language model that adds features to visual tokens between decoder layers: behind
    an in-LLM stage fewer are left. `shorten` makes its arguments those of what is left."""

    def __init__(self, module: nn.Module, name: str, shorten: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> None:
        super().__init__(module, name)
        self._shorten = shorten

    def __call__(self, *args: Any) -> Any:
        return self.original(*self._shorten(args))


class LossFunction(StandIn):
    """Stands in for a model's loss function: labels are written for the unpruned sequence, and the logits are shorter.

    packing: that of the model's last forward in this thread; None if it dropped nothing.
    """

    def __init__(
        self, model: nn.Module, name: str, function: Callable[..., Any], packing: Callable[[], Packing | None]
    ):
        super().__init__(model, name)
        self._function, self._packing = function, packing

    def __call__(self, logits: Tensor, labels: Tensor, *args: Any, **kwargs: Any) -> Any:
        packing = self._packing()
        return self._function(logits, labels if packing is None else shortened_labels(labels, packing), *args, **kwargs)


def shortened_labels(labels: Tensor, packing: Packing) -> Tensor:
    """The labels of the surviving columns. A loss compares every label with the logits of the column before it, so
    one that has a hole there is left out."""
    behind_a_hole = nn.functional.pad(~packing.valid, (1, 0))[:, :-1]
    columns = packing.columns.to(labels.device)
    return labels.gather(1, columns).masked_fill((~packing.valid | behind_a_hole).to(labels.device), IGNORED)
