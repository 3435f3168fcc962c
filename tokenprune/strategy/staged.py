"""Strategies that prune inside the language model, in stages, and checks of the layers and stages that they return."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tokenprune.checks import is_integer
from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Selection
from tokenprune.strategy.base import Strategy
from tokenprune.strategy.stage import DenoisingStage, Stage
from tokenprune.tokens.stages import StageTokens, StepTokens
from tokenprune.tokens.visual import VisualTokens


@dataclass(frozen=True)
class StagedStrategy(Strategy):
    """Prunes inside the language model too: in stages, and by skipping whole decoder layers. In block diffusion models,
    prunes between denoising steps what the denoiser reads.

    `select` decides which tokens enter the language model, or are cached by a block diffusion model; with `all_enter`,
    it need not be defined. `select_at` may read `tokens.attention` if `needs` has "text_attention", and
    `select_in_step` if it has "canvas_attention".
    """

    # No settings, as they are in a ScoreStrategy: budgets of stages are fixed.
    mass: ClassVar[None] = None
    least: ClassVar[None] = None

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection.all(tokens.n_visual, tokens.features.device) if self.all_enter else super().select(tokens)

    @abstractmethod
    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        """The stages in a language model of `n_layers`, by ascending layer."""

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        """Choose which tokens of one image are left from a stage on, and what is merged into them.

        Returns a Selection over `tokens`: its indices count within the tokens that were left before. By default, keeps
        the tokens with the highest scores in the previous selection.
        """
        if tokens.scores is None:
            raise PruningError(
                "select returned no scores, by which tokens would be left here. Return Selection(kept, n_visual, "
                "scores) there, or override select_at."
            )
        return Selection.best(tokens.scores, stage.budget(tokens.n_visual))

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        """The decoder layers, of `n_layers`, that are skipped altogether, by ascending number."""
        return ()

    @property
    def step_stages(self) -> tuple[DenoisingStage, ...]:
        """The stages between denoising steps, by ascending step, none before step 1."""
        return ()

    @property
    def canvas_layer(self) -> int | None:
        """The layer of the denoiser whose attention `select_in_step` reads; None is the last one."""
        return None

    def select_in_step(self, stage: DenoisingStage, tokens: StepTokens) -> Selection:
        """Choose which tokens of one image are read from a step on: by default those that the canvas attended to most
        in the step before.

        Returns a Selection over `tokens`: its indices count within the tokens that were left before.
        """
        return Selection.best(tokens.attention, stage.budget(tokens.n_visual))


def check_layers(strategy: Strategy, method: str, returned: object) -> None:
    """Raise SettingError unless a strategy's method has returned the numbers of layers."""
    if not isinstance(returned, Sequence) or not all(map(is_integer, returned)):
        raise SettingError(
            f"{type(strategy).__name__}.{method} returned {returned!r}; it must return a tuple with the numbers of "
            f"layers, such as (2, 5), or () for none."
        )


def check_stages(strategy: Strategy, method: str, returned: object, kind: type, example: str) -> None:
    """Raise SettingError unless a strategy's method has returned stages of a kind, each with a budget."""
    if not isinstance(returned, Sequence) or not all(isinstance(stage, kind) for stage in returned):
        raise SettingError(
            f"{type(strategy).__name__}.{method} returned {returned!r}; it must return a tuple of {kind.__name__}, "
            f"such as ({example},), or () for none."
        )
    for stage in returned:
        if stage.keep_ratio is None and stage.keep is None:
            raise SettingError(
                f"{type(strategy).__name__}.{method} returned {stage!r}, which has no budget; write {example}."
            )


def valid_stages(strategy: StagedStrategy, n_layers: int) -> tuple[Stage, ...]:
    """The strategy's stages in a language model of `n_layers`."""
    stages = strategy.stages(n_layers)
    check_stages(strategy, "stages", stages, Stage, "Stage(n_layers // 2, keep_ratio=0.25)")
    return tuple(stages)


def valid_skips(strategy: StagedStrategy, n_layers: int) -> tuple[int, ...]:
    """The decoder layers, of `n_layers`, that the strategy skips."""
    layers = strategy.skipped_layers(n_layers)
    check_layers(strategy, "skipped_layers", layers)
    return tuple(layers)


def valid_interval(strategy: Strategy) -> int:
    """The interval, in denoising steps, at which the strategy computes the action expert."""
    every = strategy.recompute_every
    if is_integer(every) and every > 0:
        return int(every)
    raise SettingError(
        f"{type(strategy).__name__}.recompute_every is {every!r}; it must be a number of denoising steps, 1 or more."
    )
