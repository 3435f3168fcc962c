"""The base classes of every pruning strategy: tensors in, Selection out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import InitVar, dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.budget import budget, check_budget
from tokenprune.errors import PruningError, SettingError, unknown
from tokenprune.selection import Merge
from tokenprune.tokens.visual import StageTokens, TowerTokens, VisualTokens


@dataclass(frozen=True, eq=False)
class Selection:
    """The outcome for one image: `kept` indices, ascending and unique, the importance scores if there are any, and
    what is merged into kept tokens, if anything is.

    Raises PruningError for anything else, so whoever holds a Selection need not check again.
    """

    kept: Int[Tensor, " kept"]
    n_visual: int
    scores: Float[Tensor, " visual"] | None = None
    merged: Merge | None = None
    unasked: InitVar[bool] = False  # kept is right, and no GPU is asked about it; for `all` and `best`

    def __post_init__(self, unasked: bool) -> None:
        kept = self.kept
        if unasked and self.scores is None:
            return
        if kept.ndim != 1 or kept.dtype != torch.long or len(kept) == 0:
            raise PruningError(
                f"Selection.kept must be a one-axis LongTensor with at least one index, not {tuple(kept.shape)} of "
                f"{kept.dtype}. From a mask: mask.nonzero()[:, 0]."
            )
        facts = [] if self.scores is None else [self.scores.isnan().any().to(kept.device)]
        facts += [] if unasked else [(kept[1:] > kept[:-1]).all(), kept[0], kept[-1]]
        answers = torch.stack(facts).tolist() if facts else []  # a GPU is asked once
        nan = self.scores is not None and bool(answers.pop(0))
        ascending, first, last = answers or (True, 0, self.n_visual - 1)
        if not ascending:
            raise PruningError("Selection.kept must be ascending and unique: write kept.unique().")
        if first < 0 or last >= self.n_visual:
            raise PruningError(
                f"Selection.kept has indices in {first}..{last}, but the image has visual tokens "
                f"0..{self.n_visual - 1}. Indices count within one image, not within the prompt."
            )
        if self.scores is not None and self.scores.shape != (self.n_visual,):
            raise PruningError(
                f"Selection.scores has shape {tuple(self.scores.shape)}; it needs one score for each of the "
                f"{self.n_visual} visual tokens."
            )
        if nan:
            raise PruningError("importance scores must be numbers, and some are NaN.")

    @classmethod
    def first(
        cls, order: Int[Tensor, " visual"], n_kept: int, scores: Float[Tensor, " visual"] | None = None
    ) -> Selection:
        """The first `n_kept` of an order over all visual tokens, put back into their original order."""
        return cls(order[:n_kept].sort().values, len(order), None if scores is None else scores.detach())

    @classmethod
    def best(cls, scores: Float[Tensor, " visual"], n_kept: int) -> Selection:
        """The `n_kept` tokens with the highest scores; of equal ones the first."""
        order = scores.argsort(descending=True, stable=True)
        return cls(order[:n_kept].sort().values, len(order), scores.detach(), unasked=True)

    @classmethod
    def all(cls, n_visual: int, device: torch.device, scores: Float[Tensor, " visual"] | None = None) -> Selection:
        return cls(torch.arange(n_visual, device=device), n_visual, scores, unasked=True)


@dataclass(frozen=True)
class Stage:
    """In-LLM pruning: from decoder layer `layer` on, a fraction `keep_ratio` or a count `keep` of all visual tokens of
    each image are left; fewer, if the strategy says so and the stage is `at_most`."""

    layer: int
    keep_ratio: float | None = None
    keep: int | None = None
    at_most: bool = False

    def budget(self, n_visual: int) -> int:
        return budget(n_visual, self.keep_ratio, self.keep)


@dataclass(frozen=True)
class Strategy(ABC):
    """Decides which visual tokens of one image are kept.

    A strategy is a pure function of `VisualTokens` and of its own frozen settings. The budget is `keep_ratio`, the
    fraction kept, in (0, 1], or `keep`, a count; with neither, a quarter is kept. Newline tokens count. It is a budget
    per "image" (tiles compete for it) or per "tile" (each gets its share of it; an image of one tile is one). Settings
    that cannot be right raise SettingError when the strategy is made.
    """

    keep_ratio: float | None = None
    keep: int | None = None
    budget_per: Literal["image", "tile"] = "image"

    def __post_init__(self) -> None:
        if self.keep_ratio is None and self.keep is None:
            object.__setattr__(self, "keep_ratio", 0.25)
        check_budget(type(self).__name__, self.keep_ratio, self.keep)
        check_choice(type(self).__name__, "budget_per", self.budget_per, ("image", "tile"))
        # 1 and numpy's numbers are welcome; one type keeps equality, printing and JSON simple.
        object.__setattr__(self, "keep_ratio", None if self.keep_ratio is None else float(self.keep_ratio))
        object.__setattr__(self, "keep", None if self.keep is None else int(self.keep))

    @property
    def needs(self) -> frozenset[str]:
        """Names from `tokenprune.tokens.visual.STATISTICS` that `select` reads from its tokens."""
        return frozenset()

    @property
    def attention_layer(self) -> int | None:
        """The encoder layer that "vision_attention" comes from; None is the one whose output the model uses."""
        return None

    @property
    def tiles_apart(self) -> bool:
        """Whether `select` is asked about every tile by itself, as soon as there are several. A strategy that splits a
        budget per tile in its own way, or all at once, says no."""
        return self.budget_per == "tile"

    @abstractmethod
    def select(self, tokens: VisualTokens) -> Selection:
        """The tokens of one image that are kept."""

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        """Where a language model of `n_layers` prunes further, by ascending layer; none for a strategy that prunes
        before it only."""
        return ()

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        """The tokens of one image that are left from a stage on, and what of the others is merged into them; a
        Selection over `tokens`, so its indices count within what was left before. Without an override, those are left
        whose scores are highest by the selection before.

        `tokens.attention` needs "text_attention".
        """
        if tokens.scores is None:
            raise PruningError("a strategy with stages must give scores: return Selection(kept, n_visual, scores).")
        return Selection.best(tokens.scores, stage.budget(tokens.n_visual))

    def skipped(self, n_layers: int) -> tuple[int, ...]:
        """Which decoder layers of a language model of `n_layers` are not executed at all, by ascending number; none
        unless a strategy says so."""
        return ()

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        """Behind which encoder layers of the vision tower `select_in_tower` is asked, by ascending number, of those
        `n_layers` that come before the layer whose output the projector gets. For a strategy that needs
        "left_in_tower"; its `select` keeps no token that the tower has dropped."""
        return ()

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        """The patches of one tile that are left behind an encoder layer; a Selection over `tokens`, so its indices
        count within what was left before. Its scores are in the tokens of the next call."""
        raise NotImplementedError

    def budget(self, n_visual: int) -> int:
        """How many of `n_visual` tokens to keep before the language model."""
        return budget(n_visual, self.keep_ratio, self.keep)

    def for_part(self, n_kept: int, n_visual: int) -> Strategy:
        """The same strategy, to be asked for `n_kept` of the `n_visual` tokens of a part of an image."""
        return replace(self, keep_ratio=None, keep=n_kept, budget_per="image")


@dataclass(frozen=True)
class ScoreStrategy(Strategy):
    """Keeps the tokens with the highest importance scores; a subclass needs only `score`."""

    @abstractmethod
    def score(self, tokens: VisualTokens) -> Float[Tensor, " visual"]:
        """One importance score per visual token, higher = keep. NaN raises PruningError."""

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection.best(self.score(tokens), self.budget(tokens.n_visual))


def check_choice(owner: str, field: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises SettingError unless `value` is one of `choices`."""
    if value not in choices:
        raise SettingError(f"{owner}: {unknown(field, value, choices)} Write {field}={choices[0]!r}.")
