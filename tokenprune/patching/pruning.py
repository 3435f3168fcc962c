"""The one call on and the one call off."""

from __future__ import annotations

from dataclasses import fields
from types import TracebackType
from typing import Any, cast

from torch import nn

from tokenprune.adapters import adapter_for
from tokenprune.adapters.wrappers import unwrap_model
from tokenprune.engine.pruner import Pruner, pruner_of
from tokenprune.errors import PruningError, SettingError, unknown
from tokenprune.report import Report
from tokenprune.sequence.packing import PositionIds
from tokenprune.strategies import STRATEGIES
from tokenprune.strategies.settings import SettingsFile
from tokenprune.strategy import Strategy, check_choice
from tokenprune.tokens.visual import check_needs


class PatchHandle:
    """A patched model's way back, and its report. Leaving a `with` block removes the patch."""

    def __init__(self, pruner: Pruner) -> None:
        self._pruner = pruner

    @property
    def strategy(self) -> Strategy:
        return self._pruner.strategy

    @property
    def position_ids(self) -> PositionIds:
        return self._pruner.position_ids

    @property
    def report(self) -> Report:
        """The last forward that contained visual tokens, in whichever thread. Raises PruningError if there was none
        yet."""
        if self._pruner.report is None:
            raise PruningError("no report yet: this patch has seen no picture. Call the model with one first.")
        return self._pruner.report

    def remove(self) -> None:
        """Makes the model what it was before `patch`. Doing so twice, or after another patch replaced this one,
        changes nothing."""
        self._pruner.remove()

    def __enter__(self) -> PatchHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = "patched" if pruner_of(self._pruner.model) is self._pruner else "removed"
        model = type(self._pruner.model).__name__
        return f"PatchHandle({model}, {self.strategy}, position_ids={self.position_ids!r}, {state})"


def patch(model: object, strategy: object, *, position_ids: str = "original", **settings: Any) -> PatchHandle:
    """Makes a loaded model prune its visual tokens, until the handle's `remove` or `unpatch`.

        handle = tokenprune.patch(model, FoPru(keep_ratio=0.25))
        handle = tokenprune.patch(model, "fopru", keep_ratio=0.25)
        handle = tokenprune.patch(model, "settings.json")

    model: an instance of a supported class, or one inside PEFT's or torch.compile's wrapper; only this instance
        changes. A second patch replaces the first. A copy of a patched model is patched too, and by itself: unpatch
        one, and the other stays as it is.
    strategy: a Strategy, or the name of one, with its settings as keywords; or a settings file, such as
        `tokenprune optimize` writes, with keywords for what is to be different. A file whose settings were found on a
        model of another depth gives a warning.
    position_ids: "original" leaves every token, the text behind the pictures and the answer included, at the position
        ID it has without pruning (GAP, https://arxiv.org/abs/2506.21873); "compact" renumbers without gaps. Where IDs
        have several components (Qwen-VL), compact ones number the kept tokens one by one as text, in all of them.

    Raises SettingError for a setting that cannot be right and UnsupportedError for a model that cannot be patched. The
    model is then as it was.
    """
    file = SettingsFile.read(strategy) if isinstance(strategy, str) and strategy.endswith(".json") else None
    chosen = _strategy(strategy, settings) if file is None else file.made(**settings)
    check_choice("patch", "position_ids", position_ids, ("original", "compact"))
    model = unwrap_model(model)
    adapter = adapter_for(model)
    check_needs(repr(chosen), chosen.needs, adapter.offers, adapter.description)
    if file is not None:
        file.warn_unless_made_for(len(adapter.layers))
    assert isinstance(model, nn.Module)
    pruner, replaced = Pruner(model, adapter, chosen, cast(PositionIds, position_ids)), pruner_of(model)
    if replaced is not None:
        replaced.remove()
    try:
        pruner.install()
    except BaseException:
        if replaced is not None:
            replaced.install()
        raise
    return PatchHandle(pruner)


def unpatch(model: nn.Module) -> None:
    """Removes the patch of `model`; a model without one stays as it is."""
    pruner = pruner_of(unwrap_model(model))
    if pruner is not None:
        pruner.remove()


def _strategy(strategy: object, settings: dict[str, Any]) -> Strategy:
    if isinstance(strategy, Strategy):
        if settings:
            name, written = type(strategy).__name__, ", ".join(f"{k}={v!r}" for k, v in settings.items())
            raise SettingError(
                f"settings belong to the strategy when it is an object: write patch(model, {name}({written})). "
                f"patch itself takes position_ids."
            )
        return strategy
    if isinstance(strategy, type):
        raise SettingError(f"strategy is a class; write patch(model, {strategy.__name__}(keep_ratio=0.25)).")
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise SettingError(unknown("strategy", strategy, STRATEGIES))
    known = [field.name for field in fields(STRATEGIES[strategy])]
    for name in settings:
        if name not in known:
            raise SettingError(f"{strategy}: {unknown('setting', name, [*known, 'position_ids'])}")
    return STRATEGIES[strategy](**settings)
