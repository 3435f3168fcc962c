"""Overrides of methods on one model instance, for what module hooks cannot see.

They are objects rather than closures, so that a copy or pickle of the model gets its own override.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar

from torch import nn

from tokenprune.errors import UnsupportedError


class MethodOverride(ABC):
    """Replaces a method of one module by `override` until `remove`.

    If somebody has wrapped the override in turn, as accelerate's hooks do, the wrapper still calls it after `remove`;
    it then only calls what it overrode.

    only_instances: whether the module's class may lack the method. If False, the constructor raises UnsupportedError
        for a module without it.
    """

    only_instances: ClassVar[bool] = False

    def __init__(self, module: nn.Module, name: str) -> None:
        self._module, self._name, self._removed = module, name, False
        self._overridden = vars(module).get(name)  # an attribute of the instance, such as accelerate sets
        if not self.only_instances and self.original is None:
            raise UnsupportedError(
                f"{type(module).__name__} has no {name}(), which tokenprune must override to prune this model. Report "
                f"it with your transformers version, and install an earlier one meanwhile."
            )

    @property
    def original(self) -> Any:
        """What is overridden: the instance's attribute or, if it had none, the current method of its class."""
        if self._overridden is not None:
            return self._overridden
        method = getattr(type(self._module), self._name, None)
        return method and partial(method, self._module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*args, **kwargs) if self._removed else self.override(*args, **kwargs)

    @abstractmethod
    def override(self, *args: Any, **kwargs: Any) -> Any:
        """What runs instead of `original`."""

    def install(self) -> MethodOverride:
        setattr(self._module, self._name, self)
        return self

    def remove(self) -> None:
        self._removed = True
        if vars(self._module).get(self._name) is not self:
            return
        delattr(self._module, self._name)
        if self._overridden is not None:
            setattr(self._module, self._name, self._overridden)


class ForwardOverride(MethodOverride):
    """Overrides a module's forward. Neither the module nor its name, weights or hooks change."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, "forward")

    @property
    def __wrapped__(self) -> Any:  # where `inspect` finds the signature, which accelerate reads, and the function
        return self.original
