"""Names of base classes up to version 0.2, for strategies of other packages that derive from them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from tokenprune.selection import Selection
from tokenprune.strategy.scoring import ScoreStrategy
from tokenprune.strategy.stage import DenoisingStage, Stage
from tokenprune.strategy.staged import StagedStrategy
from tokenprune.tokens.stages import StageTokens

RankedStrategy = AdaptiveStrategy = ScoreStrategy


@dataclass(frozen=True)
class TextScoreStrategy(StagedStrategy, ScoreStrategy):
    """Lets every visual token enter the language model, and keeps those with the highest scores at every stage."""

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})
    all_enter: ClassVar[bool] = True

    @abstractmethod
    def score_at(self, tokens: StageTokens) -> Float[Tensor, " left"]:
        """One score per token left before a stage, higher = keep."""

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return self.best(self.score_at(tokens), stage.budget(tokens.n_visual), tokens)


@dataclass(frozen=True)
class DenoisingStrategy(StagedStrategy):
    """Prunes only between the denoising steps of block diffusion models."""

    needs: ClassVar[frozenset[str]] = frozenset({"canvas_attention"})

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return ()

    @property
    @abstractmethod
    def step_stages(self) -> tuple[DenoisingStage, ...]: ...
