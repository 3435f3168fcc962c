"""Strategies that rank visual tokens by a score, and those that read the attention of the vision tower."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_choice, check_layer, check_mass, check_share, is_integer
from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Selection, budget, n_reaching
from tokenprune.selection.merge import describe
from tokenprune.strategy.base import Strategy
from tokenprune.tokens.cells import cell_side, order_by_cell, selection_cells
from tokenprune.tokens.stages import StageTokens
from tokenprune.tokens.visual import VisualTokens

#: The fewest tokens that an adaptive budget leaves, as a fraction of the visual tokens.
LEAST = 0.05


@dataclass(frozen=True)
class ScoreStrategy(Strategy):
    """Ranks visual tokens by a score, all of an image or within cells of its grid, and keeps a fixed budget of them, or
    as many as each image needs. A subclass defines `score`; or its own `select`, by `n_to_keep`, `ranked` and `best`.

    cells: the side of a square cell in visual tokens; "auto" is the largest with at most as many tokens per cell as
        there are visual tokens per kept one, but at least 2 (2 for a quarter, 3 for 10 %). Each cell proposes its best
        tokens, as few as can fill the budget, and the best of these are kept, which keeps tokens everywhere. Cells end
        at the edges of video frames and of tiles with a grid of their own, and newline tokens have their own cells.
        None ranks all tokens of the image.
    mass: keep the fewest tokens whose scores add up to this share, in (0, 1], of the total of the image (or of each
        tile, with budget_per="tile"), and never more than the budget: an image whose importance is concentrated costs
        less. Which tokens are kept is up to the subclass. 1 and None keep the budget.
    least: with `mass`, the minimum to keep, as a fraction of the visual tokens; None is 0.05, but at most a fifth of
        the budget. Without `mass`, raises SettingError.

    A strategy that ranks at the stages of a `StagedStrategy` derives from that first, and then has `cells` alone.
    """

    # Keyword-only, so that a subclass's own settings keep their positions.
    cells: Literal["auto"] | int | None = field(default=None, kw_only=True)
    mass: float | None = field(default=None, kw_only=True)
    least: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if type(self).select is ScoreStrategy.select and type(self).score is ScoreStrategy.score:
            raise SettingError(f"{name} is a base class. Use a class that defines score, or select.")
        if not (self.cells in (None, "auto") or (is_integer(self.cells) and self.cells > 1)):
            raise SettingError(
                f"{name}: cells={self.cells!r} is not the side of a cell in visual tokens; write "
                f'cells="auto", an integer of at least 2, or None to rank all tokens of the image.'
            )
        if self.least is not None:
            check_share(name, "least", self.least, "a fraction of the visual tokens")
        if self.mass is None:
            if self.least != type(self).least:
                raise SettingError(
                    f"{name}: least={self.least!r} has no effect without mass, which keeps what each image needs. "
                    f"Write mass=0.9 too, for instance, or leave out least."
                )
            return
        check_mass(name, self.mass)
        if self.keep_ratio is not None and self.least is not None and self.least > self.keep_ratio:
            raise SettingError(
                f"{name}: least={self.least!r} is more than keep_ratio={self.keep_ratio!r}, the most that may be kept. "
                f"Write a lower least, or a higher keep_ratio."
            )

    @property
    def reads_grid(self) -> bool:
        return self.cells is not None

    def ranked(
        self, scores: Float[Tensor, " left"], n_kept: int, tokens: VisualTokens | StageTokens
    ) -> Int[Tensor, " left"]:
        """Return the order in which tokens are kept, to keep `n_kept`; among equal scores, the first is better."""
        if self.cells is None:
            return scores.argsort(descending=True, stable=True)
        side = cell_side(n_kept, tokens.n_visual) if self.cells == "auto" else self.cells
        cells = selection_cells(tokens.layout, side).to(scores.device)
        return order_by_cell(scores, cells[tokens.left] if isinstance(tokens, StageTokens) else cells, n_kept)

    def best(self, scores: Float[Tensor, " left"], n_kept: int, tokens: VisualTokens | StageTokens) -> Selection:
        """The `n_kept` tokens that come first in the order of `ranked`."""
        return Selection.first(self.ranked(scores, n_kept, tokens), n_kept, scores)

    def n_to_keep(self, scores: Float[Tensor, " visual"]) -> int:
        """How many tokens of an image with these scores to keep. With `mass`, a negative score raises PruningError."""
        most = self.budget(len(scores))
        if self.mass is None:
            return most
        least = max(1, min(budget(len(scores), LEAST, None), most // 5))
        if self.least is not None:
            least = budget(len(scores), self.least, None)
        return min(most, max(least, n_reaching(scores, self.mass)))

    def score(self, tokens: VisualTokens) -> Float[Tensor, " visual"]:
        """One importance score per visual token, higher = keep. NaN raises PruningError."""
        raise NotImplementedError

    def select(self, tokens: VisualTokens) -> Selection:
        scores: object = self.score(tokens)
        if not isinstance(scores, Tensor) or scores.shape != (tokens.n_visual,) or scores.is_complex():
            raise PruningError(
                f"{type(self).__name__}.score returned {describe(scores)}; it must return a tensor of shape "
                f"({tokens.n_visual},), one score for each visual token."
            )
        return self.best(scores, self.n_to_keep(scores), tokens)


@dataclass(frozen=True)
class AttentionStrategy(Strategy):
    """Reads the attention of one encoder layer of the vision tower, `tokens.vision_attention`.

    layer: an encoder layer, counted like a Python index; None is the one whose output the projector gets.
    features: a setting of subclasses that define it and `compares`, a statistic. "tower" compares that, features of the
        vision tower. A model offers them where its projector maps every token by itself; elsewhere tokens have no
        features before the projector, and those after it are compared. "projected" compares those in every model.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"vision_attention"})
    compares: ClassVar[str] = ""
    features = "projected"

    layer: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_layer(type(self).__name__, self.layer, "an encoder layer", -2)
        if self.compares:
            check_choice(type(self).__name__, "features", self.features, ("tower", "projected"))
            if self.features == "tower":
                object.__setattr__(self, "needs", self.needs | {self.compares})

    @property
    def attention_layer(self) -> int | None:
        return self.layer

    @property
    def required_statistics(self) -> frozenset[str]:
        return super().required_statistics - {self.compares}

    def compared(self, tokens: VisualTokens) -> Float[Tensor, "visual width"]:
        """The features to compare."""
        offered = self.compares in self.needs & tokens.statistics.keys()
        return tokens.mapped(self.compares) if offered else tokens.features
