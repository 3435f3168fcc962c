"""What is compared: the unpruned model, strategies at several keep ratios with both position IDs, and downsampling."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import tokenprune
from tokenprune.adapters import adapter_for
from tokenprune.errors import unknown
from tokenprune.evals import downsample
from tokenprune.evals.calibration import calibrated_on
from tokenprune.settings_file import SettingsFile

PositionIds = Literal["original", "compact"]

UNPRUNED = "unpruned"
DOWNSAMPLE = "downsample"  # the one name that is no strategy: nothing is pruned
# The last but one encoder layer: the bundled tower's last one was trained to name things, and guides FoPru worse.
DEFAULT_STRATEGIES = ("random", "grid", "fopru:mode=rank,layer=-2", "fopru:mode=row,layer=-2", DOWNSAMPLE)
DEFAULT_KEEP_RATIOS = (0.5, 0.25, 0.1)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One line of the table. This class itself is the unpruned model."""

    label: str = UNPRUNED
    keep_ratio: float = 1.0
    position_ids: PositionIds = "original"

    @property
    def calibrated_on(self) -> frozenset[str]:
        """Digests of the pictures that this was found on, which it must not be asked about."""
        return frozenset()

    def patched(self, model: Any) -> AbstractContextManager[Any]:
        """Change `model` inside a `with` block, which gets a PatchHandle, or None where nothing is pruned."""
        return nullcontext()

    def processor_options(self, processor: Any) -> dict[str, Any]:
        """Return what the processor is called with beyond pictures and text."""
        return {}

    def n_visual(self, processor: Any, n_placeholders: int) -> int:
        """Return how many visual tokens the unpruned model sees of a picture for which `n_placeholders` were sent."""
        return n_placeholders

    def settings(self) -> dict[str, Any]:
        """Return all settings of the strategy, for the results file."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Pruned(Configuration):
    strategy: tokenprune.Strategy

    def patched(self, model: Any) -> AbstractContextManager[Any]:
        return tokenprune.patch(model, self.strategy, position_ids=self.position_ids)

    def settings(self) -> dict[str, Any]:
        return asdict(self.strategy)


@dataclass(frozen=True, kw_only=True)
class FromFile(Pruned):
    """What a settings file holds, at the keep ratio that it was found for."""

    file: SettingsFile

    @property
    def calibrated_on(self) -> frozenset[str]:
        return calibrated_on(self.file)

    def patched(self, model: Any) -> AbstractContextManager[Any]:
        self.file.warn_unless_made_for(len(adapter_for(model).layers))
        return super().patched(model)


@dataclass(frozen=True, kw_only=True)
class Downsampled(Configuration):
    def patched(self, model: Any) -> AbstractContextManager[Any]:
        return downsample.any_resolution(model)

    def processor_options(self, processor: Any) -> dict[str, Any]:
        return downsample.processor_options(processor, self.keep_ratio)

    def n_visual(self, processor: Any, n_placeholders: int) -> int:
        rows, columns = downsample.full_grid(processor)
        return rows * columns


def configurations(
    strategies: Sequence[str] = DEFAULT_STRATEGIES, keep_ratios: Sequence[float] = DEFAULT_KEEP_RATIOS
) -> list[Configuration]:
    """Return the unpruned model, then every strategy at every keep ratio.

    A strategy is written as its name in `tokenprune.STRATEGIES`, with settings behind a colon: `fopru:mode=row`,
    `random:seed=1`. A settings file is written as its path, `settings.json`, and stands only at the keep ratio that it
    was found for: SettingError if that is not among `keep_ratios`. `downsample` shrinks the picture instead.
    """
    files = {text: _read(text, keep_ratios) for text in strategies if text.endswith(".json")}
    return [Configuration(), *(c for ratio in keep_ratios for text in strategies for c in _of(text, ratio, files))]


def _of(text: str, keep_ratio: float, files: Mapping[str, SettingsFile]) -> Iterator[Configuration]:
    if text == DOWNSAMPLE:
        yield Downsampled(label=DOWNSAMPLE, keep_ratio=keep_ratio)
        return
    if text in files:
        file, strategy = files[text], files[text].made()
        label = f"{type(strategy).__name__} {file.path.stem}"
        if strategy.keep_ratio == keep_ratio:
            for position_ids in ("original", "compact"):
                yield FromFile(
                    label=label, keep_ratio=keep_ratio, position_ids=position_ids, strategy=strategy, file=file
                )
        return
    name, settings = _parse(text)
    if name not in tokenprune.STRATEGIES:
        raise tokenprune.SettingError(unknown("strategy", name, [*tokenprune.STRATEGIES, DOWNSAMPLE]))
    strategy_class = tokenprune.STRATEGIES[name]
    known = [field.name for field in fields(strategy_class)]
    for setting in settings:
        if setting not in known:
            raise tokenprune.SettingError(f"strategy {text!r}: {unknown('setting', setting, known)}")
    strategy = strategy_class(keep_ratio=keep_ratio, **settings)
    label = " ".join([strategy_class.__name__, *(str(value) for value in settings.values())])
    for position_ids in ("original", "compact"):
        yield Pruned(label=label, keep_ratio=keep_ratio, position_ids=position_ids, strategy=strategy)


def _read(path: str, keep_ratios: Sequence[float]) -> SettingsFile:
    file = SettingsFile.read(path)
    found_for = file.made().keep_ratio
    if found_for is None:
        raise tokenprune.SettingError(f'{path}: "keep" is a count, and results are compared by keep_ratio. Write one.')
    if found_for not in keep_ratios:
        raise tokenprune.SettingError(
            f"{path}: its settings are for keep_ratio={found_for:g}, which is none of those that are measured. Write "
            f"--keep-ratios {' '.join(f'{ratio:g}' for ratio in (*keep_ratios, found_for))}"
        )
    return file


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """`fopru:mode=row,layer=-2` -> ("fopru", {"mode": "row", "layer": -2})."""
    name, _, rest = text.partition(":")
    settings = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise tokenprune.SettingError(f"strategy {text!r}: write settings as name:key=value,key=value")
        settings[key] = _value(value)
    return name, settings


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a bare word
        return text
