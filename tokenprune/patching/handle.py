"""The base classes of handles. A handle stands for a change to a model, until it is removed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Generic, TypeVar

from torch import nn

from tokenprune.engine.patch import Patch, changing_patches
from tokenprune.errors import PruningError

Self = TypeVar("Self", bound="Handle")
Patching = TypeVar("Patching", bound="PatchingHandle")
SomePatch = TypeVar("SomePatch", bound=Patch)


class Handle(ABC):
    """A changed model, and the way back. Leaving a `with` block calls `remove`."""

    _made_by: ClassVar[str]  # the function of tokenprune that returns it
    _entered = False

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """The Hugging Face model itself, without wrappers."""

    @property
    @abstractmethod
    def installed(self) -> bool:
        """Whether the change is in effect: neither removed nor replaced."""

    @abstractmethod
    def remove(self) -> None:
        """Restore the model. Calling it again has no effect."""

    @abstractmethod
    def _settings(self) -> str:
        """The settings, as `repr` shows them."""

    def __enter__(self: Self) -> Self:
        """Raises PruningError if the handle was removed, replaced or entered before: a block would run without it."""
        if not self.installed:
            raise PruningError(
                f"{self!r} was removed or replaced, so this block would run without it. Make a new one: "
                f"with tokenprune.{self._made_by}(model, ...)."
            )
        if self._entered:
            raise PruningError(
                f"{self!r} is already in effect in an outer `with` block, and the end of this one would remove it. "
                f"Leave out the inner `with`."
            )
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = "patched" if self.installed else "removed"
        return f"{type(self).__name__}({type(self.model).__name__}, {self._settings()}, {state})"


class PatchingHandle(Handle, Generic[SomePatch]):
    """The handle of a patch. When its `with` block ends inside a `with` block of the patch it replaced, that patch
    takes effect again."""

    def __init__(self, patch: SomePatch, replaced: SomePatch | None) -> None:
        self._patch, self._replaced = patch, replaced

    @property
    def model(self) -> nn.Module:
        return self._patch.model

    @property
    def installed(self) -> bool:
        return self._patch.on(self.model) is self._patch

    @property
    def ended(self) -> bool:
        """Whether the patch was removed for good, and not only replaced by another one."""
        return self._patch.ended

    def remove(self) -> None:
        """Restore the unpatched model. Calling it again has no effect. If another patch or a probe has replaced this
        patch, the other one stays, and this one does not come back when the other is removed."""
        self._patch.end()

    def __enter__(self: Patching) -> Patching:
        super().__enter__()
        self._patch.in_block = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the patch. Inside a `with` block of the patch it replaced, that patch takes effect again."""
        self._patch.in_block = False
        before = self._replaced
        with changing_patches:
            self.remove()
            if before is not None and before.in_block and not before.ended and before.on(self.model) is None:
                before.install()
