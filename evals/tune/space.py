"""Which settings are tried: strategies, and for each of them its keep ratio, layer, cells, score and stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from itertools import islice, product
from math import lcm
from typing import Any, Literal, get_args, get_origin

import numpy as np
from optuna.trial import BaseTrial

from tokenprune.adapters import ModelAdapter
from tokenprune.errors import SettingError, TokenPruneError
from tokenprune.evals.defaults import SEARCHED_KEEP_RATIOS
from tokenprune.evals.run.setups import Pruned, read_strategy
from tokenprune.serving.vllm.architectures.checkpoints import architecture_of_loaded
from tokenprune.serving.vllm.startup.refusals import check_strategy
from tokenprune.strategies.parsing import StrategySpec
from tokenprune.strategies.registry import setting_types
from tokenprune.strategy import AttentionStrategy

#: The strategies tried by default: some of each mechanism, none of which needs calibration.
STRATEGIES = (
    "grid",
    "fopru",
    "mosaic",
    "visionzip",
    "vispruner",
    "divprune",
    "backgroundpruning",
    "holov",
    "scope",
    "nuwa",
    "vflowopt",
    "ivcprune",
    "par",
    "attentionmass",
)
#: How many proposals are drawn for each setting of a generation; many are repeats or cannot run on the model.
N_TRIES = 40

Params = dict[str, Any]


def check_arguments(strategies: Sequence[str], keep_ratios: tuple[float, float]) -> None:
    """Raise SettingError for arguments that are wrong for any model."""
    if len(keep_ratios) != 2:
        raise SettingError(f"keep_ratios={keep_ratios!r}: write two, the lowest and the highest: (0.05, 0.9)")
    low, high = keep_ratios
    if not 0 < low < high <= 1:
        raise SettingError(f"keep ratios {low:g} to {high:g}: write the lower first, both above 0 and up to 1.")
    if len(set(strategies)) < len(strategies):
        raise SettingError("a strategy is named twice. Name it once.")
    for text in strategies:
        read_strategy(text)


@dataclass(frozen=True)
class Space:
    """The settings that are searched around each of the `strategies`, for a loaded model.

    strategies: as in `--strategy`; their explicit settings stay fixed.
    keep_ratios: the lowest and the highest.
    servable: leave out what vLLM cannot run.
    adapter: how the model is read, as in `patch`.
    """

    model: Any
    n_layers: int
    strategies: Sequence[str]
    keep_ratios: tuple[float, float] = SEARCHED_KEEP_RATIOS
    servable: bool = False
    adapter: type[ModelAdapter] | None = None

    def __post_init__(self) -> None:
        check_arguments(self.strategies, self.keep_ratios)

    @cached_property
    def specs(self) -> Mapping[str, StrategySpec]:
        return {text: read_strategy(text) for text in self.strategies}

    @cached_property
    def refused(self) -> Mapping[str, str]:
        """The strategies that this model, or vLLM, cannot run with any choice, and why not with their defaults."""
        return {
            text: str(self.error_of(self.setup(text, {}, self.keep_ratios[1])))
            for text in self.strategies
            if not self.starts[text]
        }

    @cached_property
    def starts(self) -> Mapping[str, list[dict[str, Any]]]:
        """The settings that each strategy starts from: its defaults, then the next choice of every setting, and so on,
        as far as they run. If none of these does, the first combination that runs; none if none does."""
        starts = {}
        for text in self.strategies:
            choices = self.choices(text)
            turns = range(lcm(*map(len, choices.values())))
            first = [{name: values[turn % len(values)] for name, values in choices.items()} for turn in turns]
            every = (dict(zip(choices, values, strict=True)) for values in product(*choices.values()))
            runs = partial(self._runs, text)
            starts[text] = [*filter(runs, first)] or [*islice(filter(runs, every), 1)]
        return starts

    @cached_property
    def possible(self) -> list[str]:
        """The strategies that can run. SettingError, with the reasons, if none can."""
        possible = [text for text in self.strategies if text not in self.refused]
        if not possible:
            reasons = " ".join(f"{text}: {why}" for text, why in self.refused.items())
            raise SettingError(f"none of the strategies can be tried. {reasons}")
        return possible

    def choices(self, text: str) -> dict[str, tuple[Any, ...]]:
        """The settings of a strategy that are searched, and their values, the default first."""
        spec = self.specs[text]
        cls, hints = spec.strategy_class, setting_types(spec.strategy_class)
        defaults = {field.name: field.default for field in fields(cls)}
        choices: dict[str, tuple[Any, ...]] = {}
        if issubclass(cls, AttentionStrategy):
            choices["layer"] = (None, -2)
        elif "average" in defaults:
            deeper = {max(1, self.n_layers // 3), max(1, self.n_layers // 2)}
            choices["layer"] = (defaults["layer"], *sorted(deeper - {defaults["layer"]}))
        if "cells" in defaults:
            choices["cells"] = (defaults["cells"], None if defaults["cells"] else "auto")
        if "attention_bias" in hints:
            choices["attention_bias"] = (None, "size")
        if get_origin(hints.get("score")) is Literal:
            choices["score"] = (
                defaults["score"],
                *(score for score in get_args(hints["score"]) if score != defaults["score"]),
            )
        if hints.get("progressive") is bool:
            choices["progressive"] = (defaults["progressive"], not defaults["progressive"])
        return {name: values for name, values in choices.items() if name not in spec.settings}

    def suggest(self, trial: BaseTrial) -> Pruned | None:
        """The setup that a trial proposes; None for incompatible settings."""
        text = trial.suggest_categorical("strategy", self.possible)
        low, high = self.keep_ratios
        ratio = round(trial.suggest_float("keep_ratio", low, high), 3)
        settings = {
            name: trial.suggest_categorical(f"{text} {name}", values) for name, values in self.choices(text).items()
        }
        setup = self.setup(text, settings, ratio)
        return None if isinstance(setup, TokenPruneError) or self.error_of(setup) else setup

    def start(self, number: int) -> Params:
        """The parameters of a starting point: the strategies in turn, each from the next of its `starts`, at keep
        ratios spread over the range."""
        turn, place = divmod(number, len(self.possible))
        text = self.possible[place]
        part = (number * 0.618034 + 0.5) % 1  # multiples of the golden ratio are evenly spread for any count
        low, high = self.keep_ratios
        starts = self.starts[text]
        settings = {f"{text} {name}": value for name, value in starts[turn % len(starts)].items()}
        return {"strategy": text, "keep_ratio": low + (high - low) * part, **settings}

    def setup(self, text: str, settings: Mapping[str, Any], ratio: float) -> Pruned | TokenPruneError:
        """The setup with these settings, labelled as for `--strategy`; or why there is none."""
        try:
            strategy = self.specs[text].make({**settings, "keep_ratio": float(ratio), "keep": None})
        except TokenPruneError as error:
            return error
        changed = {name: value for name, value in settings.items() if value != self.choices(text)[name][0]}
        words = ",".join(f"{name}={value}" for name, value in changed.items())
        joint = "," if ":" in text else ":"
        label = f"{text}{joint}{words}" if words else text
        return Pruned(label=label, keep_ratio=float(ratio), strategy=strategy, adapter=self.adapter)

    def _runs(self, text: str, settings: Mapping[str, Any]) -> bool:
        """Whether these settings run at any keep ratio."""
        ratios = np.geomspace(*self.keep_ratios, 4)
        return not all(self.error_of(self.setup(text, settings, ratio)) for ratio in ratios)

    def error_of(self, setup: Pruned | TokenPruneError) -> TokenPruneError | None:
        """Why a setup cannot be tried."""
        if isinstance(setup, TokenPruneError):
            return setup
        try:
            if self.servable:
                check_strategy(setup.strategy, self.n_layers, architecture_of_loaded(self.model.config.to_dict()))
            with setup.patched(self.model):
                return None
        except TokenPruneError as error:
            return error
