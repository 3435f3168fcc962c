"""Strategies that act between the steps of models that denoise."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from tokenprune.checks import is_integer
from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategy.base import Strategy
from tokenprune.strategy.staged import StageBudget
from tokenprune.tokens.visual import StepTokens


@dataclass(frozen=True)
class DenoisingStage(StageBudget):
    """Late-step pruning: from denoising step `step` of every canvas on, counted from 0, only a fraction `keep_ratio` or
    a count `keep` of each image's visual tokens is read."""

    step: int
    keep_ratio: float | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_integer(self.step):
            raise SettingError(
                f"DenoisingStage: step={self.step!r} is not the number of a denoising step; write an integer from 1 "
                f"on, such as step=4."
            )


@dataclass(frozen=True)
class DenoisingStrategy(Strategy):
    """Prunes, between steps, what the denoiser of a block diffusion model reads. What is cached is up to `select`."""

    needs: ClassVar[frozenset[str]] = frozenset({"canvas_attention"})

    @property
    def canvas_layer(self) -> int | None:
        """The layer of the denoiser whose attention `select_in_step` reads; None is the last one."""
        return None

    @property
    @abstractmethod
    def step_stages(self) -> tuple[DenoisingStage, ...]:
        """The stages, by ascending step, none before step 1."""

    @abstractmethod
    def select_in_step(self, stage: DenoisingStage, tokens: StepTokens) -> Selection:
        """Choose which tokens of one image are read from a step on.

        Returns a Selection over `tokens`: its indices count within the tokens that were left before.
        """


@dataclass(frozen=True)
class ReusingStrategy(Strategy):
    """Computes the layers of a robot policy's action expert only in some denoising steps."""

    @property
    @abstractmethod
    def recompute_every(self) -> int:
        """The layers are computed once in this many steps, beginning with the first; 1 computes them in every step."""

    @property
    def requires_expert(self) -> bool:
        """Whether models without an action expert are refused; else nothing is reused in them."""
        return self.recompute_every != 1
