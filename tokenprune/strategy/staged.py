"""Strategies that prune inside the language model, in stages."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from tokenprune.errors import PruningError
from tokenprune.selection import Selection
from tokenprune.strategy.base import Strategy
from tokenprune.strategy.stage import DenoisingStage, Stage
from tokenprune.tokens.visual import StageTokens, StepTokens, VisualTokens


@dataclass(frozen=True)
class StagedStrategy(Strategy):
    """Prunes inside the language model too: in stages, and by skipping whole decoder layers. In block diffusion models,
    prunes between denoising steps what the denoiser reads.

    `select` decides which tokens enter the language model, or are cached by a block diffusion model; with `all_enter`,
    it need not be defined. `select_at` may read `tokens.attention` if `needs` has "text_attention", and
    `select_in_step` if it has "canvas_attention".
    """

    # Settings of a ScoreStrategy, which a class that derives from it after this one does not have: budgets of stages
    # are fixed.
    mass: float | None = field(default=None, init=False)
    least: float | None = field(default=None, init=False)

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
