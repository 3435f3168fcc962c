"""What is compared: the unpruned model, strategies at several keep ratios with both position IDs, and downsampling."""

import ast
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import tokenprune
from tokenprune.errors import unknown
from tokenprune.evals import downsample

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
    `random:seed=1`. `downsample` shrinks the picture instead.
    """
    return [Configuration(), *(c for ratio in keep_ratios for name in strategies for c in _of(name, ratio))]


def _of(text: str, keep_ratio: float) -> Iterator[Configuration]:
    if text == DOWNSAMPLE:
        yield Downsampled(label=DOWNSAMPLE, keep_ratio=keep_ratio)
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
