"""Setups to compare: the unpruned model, strategies at several keep ratios and position IDs, and downsampling."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any, cast

import tokenprune
from tokenprune.adapters import ModelAdapter, adapter_for
from tokenprune.errors import unknown
from tokenprune.evals.defaults import DEFAULT_KEEP_RATIOS, DEFAULT_STRATEGIES, POSITION_IDS
from tokenprune.evals.run import downsample
from tokenprune.evals.run.calibration_images import calibrated_on
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.storage.provenance import class_identity
from tokenprune.sequence.position_ids import PositionIds
from tokenprune.strategies.parsing import StrategySpec
from tokenprune.strategies.registry import settings_of
from tokenprune.strategies.settings import SettingsFile

UNPRUNED = "unpruned"
DOWNSAMPLE = "downsample"  # shrinks the image and prunes nothing
BASELINES = (UNPRUNED, "random", DOWNSAMPLE)


@dataclass(frozen=True, kw_only=True)
class Setup(ABC):
    """One way to run the model, and one line of the tables.

    label: its name in results. keep_ratio: the share of visual tokens kept, in (0, 1].
    """

    label: str
    keep_ratio: float
    position_ids: PositionIds = "original"

    @property
    def key(self) -> SetupKey:
        return SetupKey(self.label, self.position_ids, self.keep_ratio)

    @property
    def calibrated_on(self) -> frozenset[str]:
        """Digests of the images that its settings were found on, on which it must not be evaluated."""
        return frozenset()

    @abstractmethod
    def patched(self, model: Any) -> AbstractContextManager[Any]:
        """Change `model` inside a `with` block, which yields a PatchHandle, or None if nothing is pruned."""

    def processor_options(self, processor: Any) -> dict[str, Any]:
        """Return the processor's arguments besides images and text."""
        return {}

    def n_visual(self, processor: Any, n_placeholders: int) -> int:
        """Return how many visual tokens the unpruned model has for images that get `n_placeholders` here."""
        return n_placeholders

    def settings(self) -> dict[str, Any]:
        """Return all settings of the strategy, for the results file; {} if nothing is pruned."""
        return {}

    def identity(self) -> dict[str, Any]:
        """Return everything that affects its answers."""
        return self.settings()


@dataclass(frozen=True, kw_only=True)
class Unpruned(Setup):
    """The model as it is."""

    label: str = UNPRUNED
    keep_ratio: float = 1.0

    def patched(self, model: Any) -> AbstractContextManager[Any]:
        return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Pruned(Setup):
    """The model with a strategy. adapter: how the model is read, as in `patch`."""

    strategy: tokenprune.Strategy
    adapter: type[ModelAdapter] | None = None

    def patched(self, model: Any) -> AbstractContextManager[Any]:
        return tokenprune.patch(model, self.strategy, position_ids=self.position_ids, adapter=self.adapter)

    def settings(self) -> dict[str, Any]:
        """Return all settings. SettingError for one that JSON cannot represent."""
        settings = settings_of(self.strategy)
        for name, value in settings.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise tokenprune.SettingError(
                    f"{type(self.strategy).__name__}: {name} is a {type(value).__name__}, which a run cannot store. "
                    "Make it a text that says where the strategy finds it, such as the path of a file"
                ) from error
        return settings

    def identity(self) -> dict[str, Any]:
        return self.settings() | class_identity(self.strategy)


@dataclass(frozen=True, kw_only=True)
class FromFile(Pruned):
    """The model with the strategy of a settings file, at the keep ratio that the settings were found for."""

    file: SettingsFile

    @property
    def calibrated_on(self) -> frozenset[str]:
        return calibrated_on(self.file)

    def patched(self, model: Any) -> AbstractContextManager[Any]:
        self.file.warn_unless_made_for(len(adapter_for(model).layers))
        return super().patched(model)


@dataclass(frozen=True, kw_only=True)
class Downsampled(Setup):
    """The model on a smaller image."""

    label: str = DOWNSAMPLE

    def patched(self, model: Any) -> AbstractContextManager[Any]:
        return downsample.any_resolution(model)

    def processor_options(self, processor: Any) -> dict[str, Any]:
        return downsample.processor_options(processor, self.keep_ratio)

    def n_visual(self, processor: Any, n_placeholders: int) -> int:
        rows, columns = downsample.full_grid(processor)
        n_images = n_placeholders // prod(downsample.shrunk_grid(processor, self.keep_ratio))
        return n_images * rows * columns


def make_setups(
    strategies: Sequence[str | tokenprune.Strategy] = DEFAULT_STRATEGIES,
    keep_ratios: Sequence[float] = DEFAULT_KEEP_RATIOS,
    position_ids: Sequence[str] | None = POSITION_IDS,
    baselines: Sequence[str] = (UNPRUNED,),
) -> list[Setup]:
    """Return the unpruned model if it is among the `baselines`, then all strategies and other baselines at each ratio.

    A strategy is a string for `tokenprune.strategies.parse`: `fopru:mode=row`, or
    `my_package.my_module:MyStrategy,layer=2`. A settings file is given by its path, `settings.json`, and is used only
    at the keep ratio that it was found for; SettingError if that is not among `keep_ratios`. `downsample` shrinks the
    image instead. A Strategy object is used at each of the keep ratios. position_ids None: those that each strategy has
    by default. SettingError if two setups have the same name.
    """
    for ids in position_ids or ():
        if ids not in POSITION_IDS:
            raise tokenprune.SettingError(unknown("kind of position IDs", ids, POSITION_IDS))
    named = [*strategies, *(name for name in baselines if name != UNPRUNED and name not in strategies)]
    asked = [_read(name, keep_ratios) if isinstance(name, str) and name != DOWNSAMPLE else name for name in named]
    made = [(one, strategy) for ratio in keep_ratios for strategy in asked if (one := _of(strategy, ratio)) is not None]
    full: dict[tuple[str, float], set[str]] = {}
    for one, strategy in made:
        if isinstance(one, Pruned):
            full.setdefault((one.label, one.keep_ratio), set()).add(_full_label(strategy))
    setups: list[Setup] = [Unpruned()] if UNPRUNED in baselines else []
    for one, strategy in made:
        if isinstance(one, Pruned):
            if len(full[one.label, one.keep_ratio]) > 1:
                one = replace(one, label=_full_label(strategy))
            kinds = [one.strategy.default_position_ids] if position_ids is None else position_ids
            setups += [replace(one, position_ids=cast(PositionIds, ids)) for ids in kinds]
        else:
            setups.append(one)
    for name, count in Counter(str(setup.key) for setup in setups).items():
        if count > 1:
            raise tokenprune.SettingError(
                f"the setup {name} appears twice, so its results could not be told apart. Name it once; if these are "
                "two settings files, rename one"
            )
    return setups


def pruned_setups(
    strategies: Sequence[str], keep_ratios: Sequence[float], position_ids: Sequence[str] | None = None
) -> list[Pruned]:
    """Return `make_setups` without baselines. SettingError for downsample, which only eval can run."""
    if DOWNSAMPLE in strategies:
        raise tokenprune.SettingError(f"{DOWNSAMPLE} prunes nothing, so only `tokenprune eval` measures it")
    return [setup for setup in make_setups(strategies, keep_ratios, position_ids, ()) if isinstance(setup, Pruned)]


def possible(strategies: Sequence[str], check: Callable[[Pruned], object], say: Callable[[str], None]) -> Sequence[str]:
    """Return those strategies, none of them named by the user, for which `check` raises no UnsupportedError. One that
    passes only with its default settings gets these. Say what is left out or changed, and why. Return all if none
    passes, so that pruning says why."""
    accepted = {name: _accepted(name, check) for name in strategies}
    fitting = [usable for usable, _ in accepted.values() if usable is not None]
    for name, (usable, why) in accepted.items() if fitting else ():
        if why is not None:
            say(f"Leaving out {name}: {why}" if usable is None else f"{usable} instead of {name}: {why}")
    return fitting or strategies


def _accepted(name: str, check: Callable[[Pruned], object]) -> tuple[str | None, tokenprune.UnsupportedError | None]:
    """Return the name, or the strategy's name without settings, whichever can be run, or None; and why the name
    cannot."""
    why = None
    for tried in dict.fromkeys((name, name.partition(":")[0])):
        try:
            check(pruned_setups([tried], [0.5])[0])
        except tokenprune.UnsupportedError as error:
            why = why or error
        else:
            return tried, why
    return None, why


def read_by(adapter: type[ModelAdapter] | None, setups: Sequence[Setup]) -> list[Setup]:
    """Return the same setups, for models that are read by another adapter."""
    return [replace(setup, adapter=adapter) if isinstance(setup, Pruned) else setup for setup in setups]


def _of(given: StrategySpec | tokenprune.Strategy | str, keep_ratio: float) -> Setup | None:
    """Return a strategy at a keep ratio, with original position IDs; None for a settings file of another keep ratio."""
    if isinstance(given, str):
        if not 0 < keep_ratio <= 1:
            raise tokenprune.SettingError(f"{given}: keep_ratio={keep_ratio} is not a fraction above 0 and up to 1")
        return Downsampled(keep_ratio=keep_ratio)
    if isinstance(given, tokenprune.Strategy):
        label = _label_of(given)
        return Pruned(label=label, keep_ratio=keep_ratio, strategy=replace(given, keep_ratio=keep_ratio, keep=None))
    if given.file is not None:
        strategy = given.make()
        if strategy.keep_ratio != keep_ratio:
            return None
        label = f"{type(strategy).__name__} {given.file.path.stem}"
        return FromFile(label=label, keep_ratio=keep_ratio, strategy=strategy, file=given.file)
    label = _label(given.strategy_class, given.settings)
    return Pruned(label=label, keep_ratio=keep_ratio, strategy=given.make({"keep_ratio": keep_ratio}))


def _full_label(given: StrategySpec | tokenprune.Strategy | str) -> str:
    """Return the label used if short labels coincide: with the names of settings, or the folder of a file."""
    if isinstance(given, StrategySpec) and given.file is not None:
        path = given.file.path.resolve()
        return f"{type(given.make()).__name__} {path.parent.name}/{path.stem}"
    if isinstance(given, StrategySpec):
        return _label(given.strategy_class, given.settings, named=True)
    return _label_of(given, named=True)


def _label_of(given: tokenprune.Strategy | str, *, named: bool = False) -> str:
    """Return the label of a strategy, or of a string that names one, by its non-default settings."""
    if isinstance(given, str):
        spec = StrategySpec.read(given)
        return _label(spec.strategy_class, spec.settings, named=named)
    changed = {
        field.name: getattr(given, field.name)
        for field in sorted(fields(given), key=lambda field: field.kw_only is True)  # in signature order
        if field.name not in ("keep_ratio", "keep") and getattr(given, field.name) != field.default
    }
    return _label(type(given), changed, named=named)


def _label(strategy_class: type[tokenprune.Strategy], settings: Mapping[str, Any], *, named: bool = False) -> str:
    if strategy_class is tokenprune.Compose:
        return " + ".join(_label_of(step, named=named) for step in settings["steps"])
    values = (f"{name}={value}" if named else f"{value}" for name, value in settings.items())
    return " ".join([strategy_class.__name__, *values])


def read_strategy(text: str, also: Sequence[str] = ()) -> StrategySpec:
    """Parse a strategy whose budget is given elsewhere, such as by --keep-ratio. SettingError if the string has one
    too, which would have no effect."""
    spec = StrategySpec.read(text, also)
    if spec.file is None and spec.budget_setting is not None:
        raise tokenprune.SettingError(
            f"strategy {text!r}: {spec.budget_setting} would have no effect, because --keep-ratio (keep_ratios) says "
            f"how much is kept. Leave it out here, and write it there."
        )
    return spec


def _read(text: str, keep_ratios: Sequence[float]) -> StrategySpec:
    """Return the strategy that a string names. A settings file must be for one of the keep ratios."""
    spec = read_strategy(text, also=[DOWNSAMPLE])
    if spec.file is None:
        return spec
    found_for = spec.make().keep_ratio
    if found_for is None:
        raise tokenprune.SettingError(
            f'{text}: results are compared by keep ratio, and "keep" is a count; write "keep_ratio"'
        )
    if found_for not in keep_ratios:
        raise tokenprune.SettingError(
            f"{text}: its settings are for keep_ratio={found_for!r}, which is not measured. Write "
            f"--keep-ratio {' '.join(repr(float(ratio)) for ratio in (*keep_ratios, found_for))}"
        )
    return spec
