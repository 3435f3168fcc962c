"""Patches and unpatches a model; and the handles, each of which stands for a change to a model until it is removed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike, fspath
from types import TracebackType
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

from torch import nn

from tokenprune.adapters import ModelAdapter, adapter_for
from tokenprune.adapters.conventions import check_model, unwrap_model
from tokenprune.adapters.devices import check_heads
from tokenprune.adapters.tested import is_tested
from tokenprune.checks import check_choice
from tokenprune.engine.patch import Patch, changing_patches
from tokenprune.engine.pruner import Pruner
from tokenprune.errors import PruningError, SettingError
from tokenprune.patching.untested import check_untested
from tokenprune.report import Report
from tokenprune.sequence.position_ids import PositionIds
from tokenprune.strategies.parsing import StrategySpec
from tokenprune.strategies.settings import SettingsFile
from tokenprune.strategy import StagedStrategy, Strategy
from tokenprune.tokens.visual import check_needs

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


class PatchHandle(PatchingHandle[Pruner]):
    """A patched model, its report, and the way back. Leaving a `with` block removes the patch."""

    _made_by = "patch"

    @property
    def strategy(self) -> Strategy:
        return self._patch.strategy

    @property
    def position_ids(self) -> PositionIds:
        return self._patch.position_ids

    @property
    def report(self) -> Report:
        """The report on the last forward with visual tokens, of this thread or, if it had none, of any thread. Raises
        PruningError before the first one."""
        if self._patch.report is None:
            raise PruningError("no report yet: this patch has not seen an image. Call the model with one first.")
        return self._patch.report

    def _settings(self) -> str:
        return f"{self.strategy}, position_ids={self.position_ids!r}"


@overload
def patch(
    model: nn.Module,
    strategy: Strategy,
    *,
    position_ids: PositionIds | None = None,
    adapter: type[ModelAdapter] | None = None,
) -> PatchHandle: ...
@overload
def patch(
    model: nn.Module,
    strategy: str | PathLike[str],
    *,
    position_ids: PositionIds | None = None,
    adapter: type[ModelAdapter] | None = None,
    keep_ratio: float | None = ...,
    keep: int | None = ...,
    **settings: Any,
) -> PatchHandle: ...
def patch(
    model: object,
    strategy: object,
    *,
    position_ids: str | None = None,
    adapter: object = None,
    **settings: Any,
) -> PatchHandle:
    """Prune the visual tokens of a loaded model until `unpatch` or the handle's `remove` is called.

        handle = tokenprune.patch(model, FoPru(keep_ratio=0.25))
        handle = tokenprune.patch(model, "fopru", keep_ratio=0.25)
        handle = tokenprune.patch(model, "my_package.my_module:MyStrategy", keep_ratio=0.25)
        handle = tokenprune.patch(model, "settings.json")

    model: an instance of a supported class, possibly inside PEFT's or torch.compile's wrapper. Only this instance
        changes. A second patch replaces the first; if both are `with` blocks, the first takes effect again when the
        second ends. A copy of a patched model has its own patch: unpatching one leaves the other patched.
    strategy: a Strategy; or its name, or `module:Class`, with settings as keywords or as in "fopru:layer=-2"; or the
        path of a settings file such as `tokenprune tune` writes, with keywords for the settings to override. Warns if
        the file was made for a model with another number of layers.
    position_ids: "original" keeps every token, including the text after the images and the answer, at the position ID
        that it has without pruning (GAP, https://arxiv.org/abs/2506.21873). "compact" renumbers without gaps; where
        IDs have several components (Qwen-VL), it numbers the kept tokens one by one in all of them, like text. None is
        the strategy's default: "original", except for Downsample.
    adapter: an adapter class to use instead of the one registered for the model's class. GenericAdapter fits many
        classes without an adapter, but has not been tested on them.

    A combination of model, language model and tower that no test covers is checked on a few tokens, once per model.

    Raises SettingError for an invalid setting and UnsupportedError for a model that cannot be patched; the model is
    then unchanged.
    """
    if isinstance(model, Strategy):
        raise SettingError(f"the model comes first: write patch(model, {model!r}).")
    if isinstance(strategy, Strategy):
        chosen, file = _object(strategy, settings), None
    else:
        chosen, file = _named(strategy, settings)
    position_ids = chosen.default_position_ids if position_ids is None else position_ids
    check_choice("patch", "position_ids", position_ids, ("original", "compact"))
    model = unwrap_model(model)
    model_adapter = adapter_for(model, adapter)
    if not isinstance(chosen.needs, frozenset):
        names = [chosen.needs] if isinstance(chosen.needs, str) else sorted(chosen.needs)
        raise SettingError(f"{type(chosen).__name__}.needs is not a frozenset. Write needs = {frozenset(names)!r}.")
    needs = chosen.required_statistics
    check_needs(repr(chosen), needs, model_adapter.offers, model_adapter.description, model_adapter.why_not)
    if getattr(model, "tp_size", None) not in (None, 1):
        check_heads(repr(chosen), needs, model_adapter)
    if file is not None:
        file.warn_unless_made_for(len(model_adapter.layers))
    assert isinstance(model, nn.Module)
    pruner = Pruner(model, model_adapter, chosen, cast(PositionIds, position_ids))
    if not is_tested(model_adapter):
        drops = chosen.keep_ratio != 1 or isinstance(chosen, StagedStrategy)
        check_untested(model_adapter, drops, reads_text="text_attention" in needs)
    return PatchHandle(pruner, pruner.install())


def unpatch(model: nn.Module) -> None:
    """Remove the patch of `model`, if it has one. Raises UnsupportedError for anything but a model, such as a
    handle."""
    check_model(model)
    pruner = Pruner.on(unwrap_model(model))
    if pruner is not None:
        pruner.end()


def check_unpatched(model: object) -> None:
    """Raise SettingError for a patched model that would be taken for the unpruned one."""
    pruner = Pruner.on(unwrapped) if isinstance(unwrapped := unwrap_model(model), nn.Module) else None
    if pruner is not None:
        raise SettingError(
            f"the model is patched, with {pruner.strategy}, and would pass for the unpruned one that setups are "
            f"compared with. Unpatch it first: tokenprune.unpatch(model), or outside of the `with` block."
        )


def _object(strategy: Strategy, settings: dict[str, Any]) -> Strategy:
    if settings:
        name, written = type(strategy).__name__, ", ".join(f"{k}={v!r}" for k, v in settings.items())
        raise SettingError(
            f"settings belong to the strategy when it is an object: write patch(model, {name}({written})). "
            f"patch itself takes position_ids."
        )
    return strategy


def _named(strategy: object, settings: dict[str, Any]) -> tuple[Strategy, SettingsFile | None]:
    if isinstance(strategy, type):
        raise SettingError(f"strategy is a class; write patch(model, {strategy.__name__}(keep_ratio=0.25)).")
    spec = StrategySpec.read(fspath(strategy) if isinstance(strategy, PathLike) else strategy)
    return spec.make(settings, also=["position_ids"]), spec.file
