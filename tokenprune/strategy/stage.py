"""Stages, from which on fewer visual tokens are left: of decoder layers, and of denoising steps. Schedules: one in-LLM
stage, or several whose average over the decoder layers is a given keep ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

from tokenprune.checks import check_budget, check_count, check_flags, is_integer
from tokenprune.errors import SettingError
from tokenprune.selection import budget


class StageBudget:
    """The budget of a stage: a fraction `keep_ratio` or a count `keep`. Raises SettingError if both are set, or if the
    stage starts at anything but a number."""

    start: ClassVar[tuple[str, str]]  # what the number is of, and an example

    keep_ratio: float | None
    keep: int | None

    def __post_init__(self) -> None:
        name, (what, example) = type(self).__name__, self.start
        if self.keep_ratio is not None or self.keep is not None:
            check_budget(name, self.keep_ratio, self.keep)
        field = what.split()[-1]
        if not is_integer(value := getattr(self, field)):
            raise SettingError(
                f"{name}: {field}={value!r} is not the number of a {what}; write an integer, such as {example}."
            )

    def budget(self, n_visual: int) -> int:
        """How many of an image's `n_visual` tokens are kept."""
        return budget(n_visual, self.keep_ratio, self.keep)


@dataclass(frozen=True)
class Stage(StageBudget):
    """In-LLM pruning: from decoder layer `layer` on, each image keeps a fraction `keep_ratio` or a count `keep` of all
    its visual tokens; or fewer, if the strategy selects fewer and the stage is `at_most`.

    looks_ahead: whether `tokens.attention` is that of `layer` itself, which is about to be entered, instead of that of
        the layer before. Its queries and keys are computed for this alone, and of the queries only the last token's.
    """

    start: ClassVar[tuple[str, str]] = "decoder layer", "n_layers // 2"

    layer: int
    keep_ratio: float | None = None
    keep: int | None = None
    at_most: bool = False
    looks_ahead: bool = False

    @property
    def read_layer(self) -> int:
        """The decoder layer whose attention the stage reads."""
        return self.layer if self.looks_ahead else self.layer - 1


@dataclass(frozen=True)
class DenoisingStage(StageBudget):
    """Late-step pruning: from denoising step `step` of every canvas on, counted from 0, only a fraction `keep_ratio` or
    a count `keep` of each image's visual tokens is read."""

    start: ClassVar[tuple[str, str]] = "denoising step", "step=4"

    step: int
    keep_ratio: float | None = None
    keep: int | None = None


def check_one_stage(strategy: Any) -> None:
    """Raise SettingError for settings that `one_stage` cannot use."""
    name = type(strategy).__name__
    check_count(name, "layer", strategy.layer)
    check_flags(name, average=strategy.average)
    if strategy.average and strategy.keep is not None:
        raise SettingError(f"{name}: average=True needs a ratio, not a count. Use keep_ratio.")


def one_stage(strategy: Any, n_layers: int) -> tuple[Stage, ...]:
    """Make the only stage of a strategy from its settings:

    layer: the decoder layer, counted from 0, that the stage starts at.
    keep_ratio, keep: the budget from `layer` on; the layers before it see every visual token.
    average: True makes keep_ratio the average over all layers, to compare with strategies that prune elsewhere. The
        share kept from `layer` on is then smaller: (keep_ratio * layers - layer) / (layers - layer).
    """
    if not strategy.average:
        return (Stage(strategy.layer, strategy.keep_ratio, strategy.keep),)
    return geometric_stages(type(strategy).__name__, [strategy.layer], n_layers, strategy.keep_ratio)


def layers_at(shares: Sequence[float], n_layers: int) -> list[int]:
    """Return the decoder layers at these shares of the depth, never the first layer.

    Shares that round to the same layer in a shallow model give one layer.
    """
    return sorted({min(max(round(share * n_layers), 1), n_layers - 1) for share in shares}) if n_layers > 1 else []


def looking_ahead(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages, each of which reads the attention of the layer that it is about to enter."""
    return tuple(replace(stage, looks_ahead=True) for stage in stages)


def geometric_stages(owner: str, layers: Sequence[int], n_layers: int, average: float) -> tuple[Stage, ...]:
    """Make stages that each keep the same share of the remaining tokens, for a given average keep ratio.

    average: the share of all visual tokens, averaged over the layers. Exact except for rounding to whole tokens.
    owner: the strategy, for error messages.

    Raises SettingError if no share gives that average. Layers that the model does not have are left to `patch` to
    reject.
    """
    if layers and layers[-1] >= n_layers:
        return tuple(Stage(layer, 1.0) for layer in layers)
    share = common_share(owner, layers, n_layers, average)
    return tuple(Stage(layer, share ** (i + 1)) for i, layer in enumerate(layers))


def common_share(owner: str, layers: Sequence[int], n_layers: int, average: float) -> float:
    """Solve for the share that each of `geometric_stages` keeps."""
    lengths = [end - start for start, end in pairwise([0, *layers, n_layers])]
    check_before_first(owner, lengths[0], n_layers, average)
    low, high = 0.0, 1.0
    for _ in range(60):  # bisection to the last bit of a double
        middle = (low + high) / 2
        reached = sum(length * middle**i for i, length in enumerate(lengths)) >= average * n_layers
        low, high = (low, middle) if reached else (middle, high)
    return high


def check_before_first(owner: str, n_before: int, n_layers: int, average: float) -> None:
    """Raise SettingError if the layers before the first stage, which see every visual token, use up the average."""
    if n_before >= average * n_layers and average < 1:
        raise SettingError(
            f"{owner}: keep_ratio={average} is an average over {n_layers} layers, and the {n_before} before the first "
            f"stage see all visual tokens, which alone averages {n_before / n_layers:.3g}. Use a higher keep_ratio, or "
            f"a strategy that prunes before the language model or earlier in it."
        )


def powered_stages(
    owner: str, layers: Sequence[int], shares: Sequence[float], n_layers: int, average: float
) -> tuple[Stage, ...]:
    """Make stages that keep a schedule's shares of all visual tokens, raised to the power that gives an average keep
    ratio. Exact except for rounding to whole tokens; the schedule's own average leaves it unchanged.

    Raises SettingError if no power gives that average. Layers that the model does not have are left to `patch` to
    reject.
    """
    if layers and layers[-1] >= n_layers:
        return tuple(Stage(layer, share) for layer, share in zip(layers, shares, strict=True))
    lengths = [end - start for start, end in pairwise([0, *layers, n_layers])]

    def reached(power: float) -> float:
        return sum(n * share**power for n, share in zip(lengths, [1.0, *shares], strict=True)) / n_layers

    if math.isclose(reached(1.0), average, abs_tol=1e-6):
        return tuple(Stage(layer, share) for layer, share in zip(layers, shares, strict=True))
    check_before_first(owner, lengths[0], n_layers, average)
    low, high = 0.0, 1.0
    while reached(high) > average:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) <= average else (middle, high)
    return tuple(Stage(layer, share**high) for layer, share in zip(layers, shares, strict=True))
