"""The search space of VFlowOpt's settings. Every point spends exactly the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tokenprune.errors import SettingError
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt

Point = dict[str, float]
#: Searched on a logarithmic scale: a cell's size matters most below four tokens a side.
LOGARITHMIC = ("cell",)


@dataclass(frozen=True)
class SearchSpace:
    """The settings around `base` for a model of `n_layers`, images whose shorter side has up to `grid_side` visual
    tokens and whose patches receive up to `highest_attention` times their tile's mean.

    first: R1, from keep_ratio to 1.5 times it.
    second_place: where R2 lies between the lowest value that still spends the budget (the last third keeps what the
        second had) and the highest that leaves the last third a tenth of keep_ratio. The paper's space reaches as
        far at 25 %, but includes points that are impossible or spend less than the budget.
    threshold: from 0, where every patch is an anchor, to `highest_attention`, above which none is and every tile falls
        back to its best one. The paper's 50 is 7 % of SigLIP's 729 patches; with few patches none gets that far.
    alpha: -1 to 1, if the model shows the image's colours.
    cell: from 1, where every token is its own cell, so that none are merged, to `grid_side`.

    Settings that `base` disables are not searched: R1 and R2 without stages, the cell without recycling.
    """

    base: VFlowOpt
    n_layers: int
    grid_side: int
    highest_attention: float
    colors: bool = True

    def __post_init__(self) -> None:
        check_searchable(self.base, self.n_layers)

    @property
    def average(self) -> float:
        assert self.base.keep_ratio is not None
        return self.base.keep_ratio

    @property
    def sides(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of each variable."""
        sides = {"threshold": (0.0, self.highest_attention)}
        if self.base.progressive:
            sides |= {"first": (self.average, min(1.0, 1.5 * self.average)), "second_place": (0.0, 1.0)}
        if self.colors:
            sides["alpha"] = (-1.0, 1.0)
        if self.base.recycle and self.grid_side > 1:
            sides["cell"] = (1.0, float(self.grid_side))
        return sides

    def strategy(self, point: Mapping[str, float]) -> VFlowOpt:
        """Return the strategy at a point of the space."""
        settings = {name: value for name, value in point.items() if name != "second_place"}
        if self.base.progressive:
            lowest, highest = self._second(point["first"])
            settings["second"] = lowest + point["second_place"] * (highest - lowest)
        return replace(self.base, **settings)

    def point(self, strategy: VFlowOpt) -> Point:
        """Return the point of the space nearest to a strategy, variable by variable."""
        values = {"threshold": strategy.threshold, "alpha": strategy.alpha, "cell": strategy.cell}
        if values["cell"] is None:
            values["cell"] = self.grid_side / 2
        sides, point = self.sides, {}
        if self.base.progressive:
            values["first"] = strategy.entering
            lowest, highest = self._second(_within(strategy.entering, sides["first"]))
            values["second_place"] = 1.0 if highest == lowest else (strategy.second - lowest) / (highest - lowest)
        for name, side in sides.items():
            value = values[name]
            assert value is not None
            point[name] = _within(value, side)
        return point

    def _second(self, first: float) -> tuple[float, float]:
        """Return the lowest and highest R2 compatible with an R1."""
        third = self.n_layers // 3
        last = self.n_layers - 2 * third
        rest = self.average * self.n_layers - first * third  # share x layers left for the second and last thirds
        lowest = rest / (third + last) / first
        highest = (rest - 0.1 * self.average * last) / third / first
        return min(1.0, lowest), min(1.0, highest)


def check_searchable(base: VFlowOpt, n_layers: int) -> None:
    """Raise SettingError if there is nothing to search around `base`, or no such settings for a model of `n_layers`."""
    if base.keep_ratio is not None and base.keep_ratio >= 1:
        raise SettingError("VFlowOpt: keep_ratio=1 keeps everything, so there is nothing to search.")
    if base.progressive and n_layers < 3:
        raise SettingError(
            f"VFlowOpt: a language model of {n_layers} layers has no thirds. Search with progressive=False "
            f"(--no-progressive)."
        )


def _within(value: float, side: tuple[float, float]) -> float:
    return min(max(value, side[0]), side[1])
