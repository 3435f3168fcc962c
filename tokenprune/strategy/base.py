"""The base of every strategy, a pure function of visual tokens with a budget; calls of its methods, and checks of what
they return. Errors name the strategy and the method, and say what to return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from operator import index
from typing import Any, ClassVar, Literal

from torch import Tensor

from tokenprune.checks import check_budget, check_choice, plain
from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Selection, budget
from tokenprune.selection.precision import without_autocast
from tokenprune.sequence.position_ids import PositionIds
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
    default_position_ids: those that it is used with unless the user chooses, see `tokenprune.patch`.
    default_keep_ratio: a quarter, or what the paper's or its code's own schedule amounts to, if there is only one.
    record: what this repository's pages and tests say about it; of no use in other packages.
    whole_image: whether `select` needs all tokens of an image, so that no other strategy may come before it.
    all_enter: whether every visual token enters the language model, and the budgets of stages limit what is left later.
        All tiles compete there, so a budget per tile raises SettingError.
    """

    record: ClassVar[Record] = Record(keeps="")
    needs: ClassVar[frozenset[str]] = frozenset()
    default_keep_ratio: ClassVar[float] = 0.25
    default_position_ids: ClassVar[PositionIds] = "original"
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
        given = ((own, repr(getattr(self, own.name))) for own in fields(self) if own.init)
        written = (f"{own.name}={value}" for own, value in given if value != repr(own.default))
        return f"{type(self).__name__}({', '.join(written)})"

    def __post_init__(self) -> None:
        if self.keep_ratio is None and self.keep is None:
            object.__setattr__(self, "keep_ratio", self.default_keep_ratio)
        for field in fields(self):
            if field.init:
                object.__setattr__(self, field.name, plain(getattr(self, field.name)))
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
    def early_layer(self) -> int | None:
        """The encoder layer that "early_attention" comes from; None is the one at 3/8 of the depth."""
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


@contextmanager
def strategy_call(strategy: Strategy, method: str, *inputs: Tensor) -> Iterator[None]:
    """Wrap the call of a strategy's method with `inputs`: disables torch.autocast, and prefixes PruningError and
    SettingError with the names of the strategy and the method.

    Raises PruningError if the method has changed one of `inputs` in place, which torch.inference_mode hides, or if it
    raised an error while one of them has NaN.
    """
    name = type(strategy).__name__
    before = [_version(tensor) for tensor in inputs]
    try:
        with without_autocast(inputs[0].device):
            yield
    except Exception as error:
        if any(bool(tensor.isnan().any()) for tensor in inputs):
            raise PruningError(
                f"{name}.{method}: what it was given has NaN (not a number). If the model is in float16, load it in "
                f"bfloat16 or float32; else look for pixels or weights that are not finite."
            ) from error
        if not isinstance(error, PruningError | SettingError) or str(error).startswith((f"{name}.", f"{name}:")):
            raise
        raise type(error)(f"{name}.{method}: {error}") from error
    if before != [_version(tensor) for tensor in inputs]:
        raise PruningError(
            f"{name}.{method} changed tensors of its tokens in place. Others read them too, and what the model gets "
            f"does not change. Work on copies, such as tokens.features.clone(), which .float() makes of float16 "
            f"and bfloat16 only; to change kept tokens, return a Selection with a Merge."
        )


def check_is_selection(strategy: Strategy, method: str, returned: object, n: int, which: str = "") -> None:
    """Raise PruningError unless a strategy's method has returned a Selection over `n` visual tokens."""
    if isinstance(returned, Selection) and returned.n_visual == n:
        return
    what = f"a Selection over {returned.n_visual}" if isinstance(returned, Selection) else type(returned).__name__
    tokens = f"the {n} visual tokens {which}" if which else f"{n} visual tokens"
    raise PruningError(
        f"{type(strategy).__name__}.{method} returned {what}; it must return a Selection over {tokens}: "
        f"Selection(kept, {n}), with their indices in a LongTensor, or Selection.best(scores, n_kept)."
    )


def valid_budget(strategy: Strategy, n_visual: int) -> int:
    """How many of `n_visual` tokens the strategy may keep before the language model."""
    returned: Any = strategy.budget(n_visual)
    try:
        most = index(returned)  # takes numpy's integers and one-element tensors, too
    except TypeError:
        most = 0
    if most > 0:
        return most
    raise PruningError(
        f"{type(strategy).__name__}.budget({n_visual}) returned {returned!r}; it must return how many visual tokens "
        f"may be kept, an integer of at least 1."
    )


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version
