"""Strategies that prune inside the language model by the text's attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokenprune.checks import check_count, check_flags
from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategy.schedule import geometric_stages
from tokenprune.strategy.staged import Stage, StagedStrategy
from tokenprune.tokens.visual import VisualTokens


@dataclass(frozen=True)
class TextGuided(StagedStrategy):
    """Lets every visual token enter the language model, and prunes in stages.

    All tiles compete there, so a budget per tile raises SettingError.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget_per == "tile":
            raise SettingError(
                f"{type(self).__name__}: the tiles of an image compete inside the language model. Leave "
                f'budget_per="image", or use a strategy that prunes before it.'
            )

    def budget(self, n_visual: int) -> int:
        """Return `n_visual`: every token enters, and `Stage.budget` limits what is left later."""
        return n_visual

    def for_part(self, n_kept: int, n_visual: int) -> TextGuided:
        """Return itself: the stages count all tokens of the image, whatever enters."""
        return self

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection.all(tokens.n_visual, tokens.features.device)


@dataclass(frozen=True)
class OneStage(TextGuided):
    """Prunes once, on entry to decoder layer `layer`, counted from 0, by the attention of the layer before.

    keep_ratio, keep: the budget from `layer` on; the layers before it see every visual token.
    average: True makes keep_ratio the average over all layers, for comparison with strategies that prune elsewhere. The
        share kept from `layer` on is then smaller: (keep_ratio * layers - layer) / (layers - layer).
    """

    layer: int = 2
    average: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(type(self).__name__, "layer", self.layer)
        check_flags(type(self).__name__, average=self.average)
        if self.average and self.keep is not None:
            raise SettingError(f"{type(self).__name__}: average=True needs a ratio, not a count. Use keep_ratio.")

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        if not self.average:
            return (Stage(self.layer, self.keep_ratio, self.keep),)
        assert self.keep_ratio is not None
        return geometric_stages(type(self).__name__, [self.layer], n_layers, self.keep_ratio)
