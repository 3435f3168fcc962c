"""Hooks and overrides that are installed on a model, replaced by others of their kind, and removed, as a unit. And the
errors for calls that went past them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from torch import nn

from tokenprune.engine.compiling import unwatch_hooks, watch_hooks
from tokenprune.errors import PruningError

if TYPE_CHECKING:
    from tokenprune.adapters.base import ModelAdapter

Self = TypeVar("Self", bound="Patch")

#: Registers a hook or an override, to be undone when the patch is removed.
Register: TypeAlias = Callable[[Any], None]

#: Held while hooks are registered or removed: several threads may patch one model, each for its own request.
changing_patches = RLock()


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


def patch_removed_during_call() -> PruningError:
    """The error for a call whose patch was removed before its images were pruned."""
    return PruningError(
        "another thread or a hook removed or replaced the patch before this call had pruned its images. Call the model "
        "again."
    )


def not_pruned(adapter: ModelAdapter, begun: bool) -> PruningError:
    """The error for a base model that got images and called its language model past this patch.

    begun: whether the patch was installed when the base model was called.
    """
    if not begun:
        return patch_removed_during_call()
    return PruningError(
        f"{type(adapter.model).__name__} got images, but its language model was called in a way that "
        f"{type(adapter).__name__} does not know, so nothing was pruned. Remove the patch, and report it with your "
        f"transformers version."
    )
