"""Hooks and overrides on a model: installed, replaced by others of their kind, and removed, as a unit; and kept
out of compiled graphs.

Overrides are for what module hooks cannot see. They are objects rather than closures, so that a copy or pickle of the
model gets its own.

torch.compile needs help, because without it a compiled model silently prunes nothing, or prunes with a strategy that
was removed long ago. By default, compiled code neither runs nor notices hooks that are added after its compilation, and
layers of one class share it whether they have hooks or not: `watch_hooks` makes it look. And the compiler takes the
attributes of each thread for constants: `dynamo_disabled` keeps functions that read them out of its graphs. torch's
compiler is imported when the first model is patched. torch.export is refused.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, reduce
from threading import Lock, RLock
from typing import Any, ClassVar, TypeAlias, TypeVar
from weakref import WeakSet

import torch
from torch import nn

from tokenprune.errors import UnsupportedError

Function = TypeVar("Function", bound=Callable[..., Any])
Self = TypeVar("Self", bound="Patch")

#: Registers a hook or an override, to be undone when the patch is removed.
Register: TypeAlias = Callable[[Any], None]

#: Held while hooks are registered or removed: several threads may patch one model, each for its own request.
changing_patches = RLock()

#: Modules and qualified names of marked functions that the compiler has not been told about yet.
_marked: list[tuple[str, str]] = []
#: Patches that need compiled code to look for hooks.
_watching: WeakSet[Any] = WeakSet()
_lock = Lock()
_switched = False  # whether the first of them changed the compiler's configuration


class Patch(ABC):
    """The hooks and overrides of one model. `install` registers all of them in place of another patch of this kind, or
    leaves the model as it was; `remove` leaves nothing behind.

    attribute: the attribute of a patched model that holds its patch.
    in_block: whether a `with` block of the patch's handle is being executed.
    ended: whether the handle was told to remove the patch, even while another one replaced it.
    """

    attribute: ClassVar[str]

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.in_block = self.ended = False
        self._handles: list[Any] = []  # not an ExitStack, whose copy would undo the original

    @classmethod
    def on(cls: type[Self], model: nn.Module) -> Self | None:
        """The patch of this kind that is installed on a model; None if there is none."""
        return vars(model).get(cls.attribute)

    @abstractmethod
    def register(self, register: Register) -> None:
        """Register everything."""

    def install(self: Self) -> Self | None:
        """Install the patch, and return the one that it replaces; None if there is none."""
        with changing_patches, ExitStack() as undo:  # if one registration raises, those before it are undone
            if (replaced := self.on(self.model)) is not None:
                replaced.remove()
                undo.callback(replaced.install)
            undo.callback(self.remove)
            watch_hooks(self)
            vars(self.model)[self.attribute] = self
            self.register(self._handles.append)
            undo.pop_all()
        return replaced

    def remove(self) -> None:
        with changing_patches:
            while self._handles:
                self._handles.pop().remove()
            if self.on(self.model) is self:
                del vars(self.model)[self.attribute]
            unwatch_hooks(self)

    def end(self) -> None:
        """Remove it for good."""
        self.ended = True
        self.remove()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy or pickle of a patched model is patched too."""
        vars(self).update(state)
        if self._handles:
            watch_hooks(self)


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


class FunctionOverride(MethodOverride):
    """Overrides a method by a function, which is given the method and its arguments."""

    def __init__(self, module: nn.Module, name: str, function: Callable[..., Any]) -> None:
        super().__init__(module, name)
        self._function = function

    def override(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(self.original, *args, **kwargs)


class ForwardOverride(MethodOverride):
    """Overrides a module's forward. Neither the module nor its name, weights or hooks change."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, "forward")

    @property
    def __wrapped__(self) -> Any:  # where `inspect` finds the signature, which accelerate reads, and the function
        return self.original


def dynamo_disabled(function: Function) -> Function:
    """Keep a function or method that runs inside a patched model out of compiled graphs. The compiler cannot follow
    per-thread attributes: it would take them for constants, and the compiled model would silently prune nothing."""
    _marked.append((function.__module__, function.__qualname__))
    return function


def check_not_traced() -> None:
    """Raise UnsupportedError while torch.export, torch.jit.trace or torch.onnx.export records a graph, which would keep
    the example's tokens for every image. torch.compile is fine: hooks run as usual in compiled code."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():  # pyright: ignore[reportPrivateImportUsage]
        raise UnsupportedError(
            "a patched model can be neither exported nor traced (torch.export, torch.jit.trace, torch.onnx.export): "
            "which visual tokens are kept depends on the image, and the graph would always keep those of the example. "
            "Remove the patch first, and export the unpatched model."
        )


def watch_hooks(owner: object) -> None:
    """Make torch.compile look for hooks until `unwatch_hooks`. By default, compiled code ignores hooks that are added
    or removed, and layers share it whether they have hooks or not. The setting is process-wide."""
    global _switched
    with _lock:
        while _marked:
            module, qualified = _marked.pop()
            *path, name = qualified.split(".")
            holder = reduce(getattr, path, sys.modules[module])
            setattr(holder, name, torch.compiler.disable(vars(holder)[name]))
        config = torch._dynamo.config  # `disable` has imported it
        if config.skip_nnmodule_hook_guards:
            config.skip_nnmodule_hook_guards = False
            torch.compiler.reset()
            _switched = True
        _watching.add(owner)


def unwatch_hooks(owner: object) -> None:
    """Restore the setting once nobody needs it any more."""
    global _switched
    with _lock:
        _watching.discard(owner)
        if _switched and not _watching:
            torch._dynamo.config.skip_nnmodule_hook_guards = True
            _switched = False
