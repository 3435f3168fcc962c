"""Strategies that prune inside the language model by the text's attention."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from tokenprune.checks import check_count, check_flags
from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategy.all_enter import AllEnterStrategy
from tokenprune.strategy.ranked import RankedStrategy
from tokenprune.strategy.schedule import geometric_stages
from tokenprune.strategy.staged import Stage, StagedStrategy
from tokenprune.tokens.visual import StageTokens


@dataclass(frozen=True)
class TextGuided(AllEnterStrategy, StagedStrategy):
    """Lets every visual token enter the language model, and prunes in stages by the text's attention."""

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})


@dataclass(frozen=True)
class TextScoreStrategy(TextGuided, RankedStrategy):
    """Keeps the tokens with the highest scores at every stage; a subclass defines only `stages` and `score_at`."""

    @abstractmethod
    def score_at(self, tokens: StageTokens) -> Float[Tensor, " left"]:
        """One score per token left before a stage, higher = keep."""

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return self.best(self.score_at(tokens), stage.budget(tokens.n_visual), tokens)


@dataclass(frozen=True)
class OneStage(TextGuided):
    """Prunes once, on entry to decoder layer `layer`, counted from 0, by the attention of the layer before.

    keep_ratio, keep: the budget from `layer` on; the layers before it see every visual token.
    average: True makes keep_ratio the average over all layers, to compare with strategies that prune elsewhere. The
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
