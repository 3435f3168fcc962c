"""Strategies that prune inside the language model, in stages."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from tokenprune.checks import check_budget, is_integer
from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Selection, budget
from tokenprune.strategy.base import Strategy
from tokenprune.tokens.visual import StageTokens


class StageBudget:
    """The budget of a stage: a fraction `keep_ratio` or a count `keep`. Raises SettingError if both are set."""

    keep_ratio: float | None
    keep: int | None

    def __post_init__(self) -> None:
        if self.keep_ratio is not None or self.keep is not None:
            check_budget(type(self).__name__, self.keep_ratio, self.keep)

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

    layer: int
    keep_ratio: float | None = None
    keep: int | None = None
    at_most: bool = False
    looks_ahead: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_integer(self.layer):
            raise SettingError(
                f"Stage: layer={self.layer!r} is not the number of a decoder layer; write an integer, such as "
                f"n_layers // 2."
            )

    @property
    def read_layer(self) -> int:
        """The decoder layer whose attention the stage reads."""
        return self.layer if self.looks_ahead else self.layer - 1


@dataclass(frozen=True)
class StagedStrategy(Strategy):
    """Prunes inside the language model too: in stages, and by skipping whole decoder layers.

    `select` decides which tokens enter the language model. `select_at` may read `tokens.attention` if `needs` has
    "text_attention".
    """

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
