"""Strategies that let every visual token enter the language model, and prune later."""

from __future__ import annotations

from dataclasses import dataclass

from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategy.base import Strategy
from tokenprune.tokens.visual import VisualTokens


@dataclass(frozen=True)
class AllEnterStrategy(Strategy):
    """Lets every visual token enter the language model; its stages have budgets.

    All tiles compete there, so a budget per tile raises SettingError.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget_per == "tile":
            raise SettingError(
                f"{type(self).__name__}: the tiles of an image compete inside the language model. Write "
                f'budget_per="image", or use a strategy that prunes before it.'
            )

    def budget(self, n_visual: int) -> int:
        """Return `n_visual`: every token enters, and the budgets of stages limit what is left later."""
        return n_visual

    def for_part(self, n_kept: int, n_visual: int) -> AllEnterStrategy:
        """Return the strategy itself: the stages count all tokens of the image, whatever enters."""
        return self

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection.all(tokens.n_visual, tokens.features.device)
