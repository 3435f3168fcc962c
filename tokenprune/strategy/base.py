"""The base of every strategy: a pure function of visual tokens, with a budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from tokenprune.checks import check_budget, check_choice, plain
from tokenprune.errors import SettingError
from tokenprune.selection import Selection, budget
from tokenprune.strategy.record import Record
from tokenprune.tokens.visual import VisualTokens


@dataclass(frozen=True)
class Strategy(ABC):
    """Decides which visual tokens of one image enter the language model.

    A strategy is a pure function of `VisualTokens` and of its own frozen settings. The budget is `keep_ratio`, the
    fraction kept, in (0, 1], or `keep`, a count; with neither, `default_keep_ratio`. Newline tokens count. The budget
    is per "image" (tiles compete for it) or per "tile" (each gets its share; an image without tiles is one tile), and
    per "video" for a `VideoStrategy`. For other strategies, a video is an image whose tiles are its frames. Invalid
    settings raise SettingError when the strategy is created.

    needs: names from `tokenprune.tokens.STATISTICS` that `select` reads from its tokens. A class attribute; a
        strategy whose settings decide what it reads overrides it with a property.
    default_keep_ratio: a quarter, or what the paper's or its code's own schedule amounts to, if there is only one.
    record: what this repository's pages and tests say about it; of no use in other packages.
    whole_image: whether `select` needs all tokens of an image, so that no other strategy may come before it.
    all_enter: whether every visual token enters the language model, and the budgets of stages limit what is left later.
        All tiles compete there, so a budget per tile raises SettingError.
    """

    record: ClassVar[Record] = Record(keeps="")
    needs: ClassVar[frozenset[str]] = frozenset()
    default_keep_ratio: ClassVar[float] = 0.25
    whole_image: ClassVar[bool] = False
    all_enter: ClassVar[bool] = False
    budgets: ClassVar[tuple[str, ...]] = ("image", "tile")  # what `budget_per` may be

    keep_ratio: float | None = None
    keep: int | None = None
    budget_per: Literal["image", "tile", "video"] = "image"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__repr__ = cls.__repr__  # an inherited one becomes the class's own, which dataclass does not replace

    def __repr__(self) -> str:
        """The call that makes an equal strategy, leaving out settings at their defaults."""
        given = ((one, repr(getattr(self, one.name))) for one in fields(self) if one.init)
        return f"{type(self).__name__}({', '.join(f'{one.name}={it}' for one, it in given if it != repr(one.default))})"

    def __post_init__(self) -> None:
        if self.keep_ratio is None and self.keep is None:
            object.__setattr__(self, "keep_ratio", self.default_keep_ratio)
        for one in fields(self):
            if one.init:
                object.__setattr__(self, one.name, plain(getattr(self, one.name)))
        check_budget(type(self).__name__, self.keep_ratio, self.keep)
        check_choice(type(self).__name__, "budget_per", self.budget_per, self.budgets)
        object.__setattr__(self, "keep_ratio", None if self.keep_ratio is None else float(self.keep_ratio))  # 1 is 1.0
        if self.all_enter and self.budget_per == "tile":
            raise SettingError(
                f"{type(self).__name__}: the tiles of an image compete inside the language model. Write "
                f'budget_per="image", or use a strategy that prunes before it.'
            )

    @property
    def attention_layer(self) -> int | None:
        """The encoder layer that "vision_attention" comes from; None is the one whose output the model uses."""
        return None

    @property
    def reads_grid(self) -> bool:
        """Whether `select` reads where tokens are in an image, which is not known for every model."""
        return False

    @property
    def required_statistics(self) -> frozenset[str]:
        """What a model must offer: all `needs` that the strategy cannot do without, and "grid" if `reads_grid`."""
        return self.needs | ({"grid"} if self.reads_grid else set())

    @property
    def biases_attention(self) -> bool:
        """Whether the language model attends to tokens in proportion to their sizes."""
        return False

    @property
    def selects_per_tile(self) -> bool:
        """Whether `select` gets every tile of a tiled image separately. A strategy that splits a budget per tile in its
        own way, or handles all tiles at once, returns False."""
        return self.budget_per == "tile"

    @property
    def recompute_every(self) -> int:
        """In robot policies, the layers of the action expert are computed once in this many denoising steps, beginning
        with the first; 1 computes them in every step."""
        return 1

    @property
    def requires_expert(self) -> bool:
        """Whether models without an action expert are refused; else nothing is reused in them."""
        return self.recompute_every != 1

    @abstractmethod
    def select(self, tokens: VisualTokens) -> Selection:
        """Choose which tokens of one image to keep."""

    def budget(self, n_visual: int) -> int:
        """How many of `n_visual` tokens to keep before the language model."""
        return n_visual if self.all_enter else budget(n_visual, self.keep_ratio, self.keep)

    def for_part(self, n_kept: int, n_visual: int) -> Strategy:
        """The same strategy with a budget of `n_kept` tokens, for a part of an image that has `n_visual`; with
        `all_enter` itself, because stages count all tokens of the image, whatever enters."""
        return self if self.all_enter else replace(self, keep_ratio=None, keep=n_kept, budget_per="image")
