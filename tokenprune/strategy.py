"""The base classes of every pruning strategy: tensors in, Selection out.

A strategy derives from the protocols of the places where it prunes: `Strategy` before the language model, which every
strategy does, `StagedStrategy` inside it, `TowerStrategy` in the vision tower, `PatchStrategy` before the tower. The
engine builds only what these ask for. `RankedStrategy`, `ScoreStrategy` and `AttentionStrategy` are for strategies that
rank tokens by a score, and `VideoStrategy` for those that compare the frames of a video.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.errors import PruningError, SettingError, unknown
from tokenprune.selection import Selection, Stage, budget, check_budget, n_reaching, tile_share
from tokenprune.tokens.cells import cell_side, order_by_cell, selection_cells
from tokenprune.tokens.tower import PatchTokens, TowerTokens
from tokenprune.tokens.visual import StageTokens, VisualTokens


@dataclass(frozen=True)
class Strategy(ABC):
    """Decides which visual tokens of one image enter the language model.

    A strategy is a pure function of `VisualTokens` and of its own frozen settings. The budget is `keep_ratio`, the
    fraction kept, in (0, 1], or `keep`, a count; with neither, a quarter is kept. Newline tokens count. It is a budget
    per "image" (tiles compete for it) or per "tile" (each gets its share; an image without tiles is one tile), and per
    "video" for a `VideoStrategy`. For others, a video is an image whose tiles are its frames.
    Settings that cannot be right raise SettingError when the strategy is made.

    needs: names from `tokenprune.tokens.visual.STATISTICS` that `select` reads from its tokens. A class attribute; a
        strategy whose settings decide what it reads overrides it with a property.
    whole_image: whether `select` works on all tokens of an image only, so that no other strategy may come before it.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    whole_image: ClassVar[bool] = False
    budgets: ClassVar[tuple[str, ...]] = ("image", "tile")  # what `budget_per` may be

    keep_ratio: float | None = None
    keep: int | None = None
    budget_per: Literal["image", "tile", "video"] = "image"

    def __post_init__(self) -> None:
        if self.keep_ratio is None and self.keep is None:
            object.__setattr__(self, "keep_ratio", 0.25)
        check_budget(type(self).__name__, self.keep_ratio, self.keep)
        check_choice(type(self).__name__, "budget_per", self.budget_per, self.budgets)
        # 1 and numpy's numbers are welcome; one type keeps equality, printing and JSON simple.
        object.__setattr__(self, "keep_ratio", None if self.keep_ratio is None else float(self.keep_ratio))
        object.__setattr__(self, "keep", None if self.keep is None else int(self.keep))

    @property
    def attention_layer(self) -> int | None:
        """The encoder layer that "vision_attention" comes from; None is the one whose output the model uses."""
        return None

    @property
    def reads_grid(self) -> bool:
        """Whether `select` reads where tokens are in an image, which is not known of every model."""
        return False

    @property
    def biases_attention(self) -> bool:
        """Whether the language model attends to tokens in proportion to their sizes."""
        return False

    @property
    def tiles_apart(self) -> bool:
        """Whether `select` gets every tile of a tiled image by itself. A strategy that splits a budget per tile in its
        own way, or handles all tiles at once, returns False."""
        return self.budget_per == "tile"

    @abstractmethod
    def select(self, tokens: VisualTokens) -> Selection:
        """Choose the tokens of one image that are kept."""

    def budget(self, n_visual: int) -> int:
        """How many of `n_visual` tokens to keep before the language model."""
        return budget(n_visual, self.keep_ratio, self.keep)

    def for_part(self, n_kept: int, n_visual: int) -> Strategy:
        """The same strategy with a budget of `n_kept` tokens, for a part of an image that has `n_visual`."""
        return replace(self, keep_ratio=None, keep=n_kept, budget_per="image")


@dataclass(frozen=True)
class RankedStrategy(Strategy):
    """Ranks visual tokens by a score: all of an image, or within cells of its grid, which keeps tokens everywhere.

    cells: the side of a square cell in visual tokens; "auto" is the largest of which the best tokens alone, one a cell,
        can fill the budget, but at least 2 (2 for a quarter, 3 for 10 %). Of every cell, as few of the best tokens as
        can fill the budget are candidates, and the candidates with the highest scores are kept, as many as the budget
        allows. Cells end at the edges of tiles with a grid of their own and of video frames, and newline tokens have
        cells of their own. None ranks all tokens of the image.
    """

    # By keyword only, so that a subclass's own settings keep their places.
    cells: Literal["auto"] | int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = isinstance(self.cells, int) and not isinstance(self.cells, bool) and self.cells > 1
        if not (self.cells is None or self.cells == "auto" or whole):
            raise SettingError(
                f"{type(self).__name__}: cells={self.cells!r} is not the side of a cell in visual tokens; write "
                f'cells="auto", an integer of at least 2, or None to rank all tokens of the image.'
            )

    @property
    def reads_grid(self) -> bool:
        return self.cells is not None

    def ranked(
        self, scores: Float[Tensor, " left"], n_kept: int, tokens: VisualTokens | StageTokens
    ) -> Int[Tensor, " left"]:
        """Return the order in which the tokens are kept, for `n_kept` of them; of equal scores the first is better."""
        if self.cells is None:
            return scores.argsort(descending=True, stable=True)
        side = cell_side(n_kept, tokens.n_visual) if self.cells == "auto" else self.cells
        cells = selection_cells(tokens.layout, side).to(scores.device)
        return order_by_cell(scores, cells[tokens.left] if isinstance(tokens, StageTokens) else cells, n_kept)


@dataclass(frozen=True)
class AdaptiveStrategy(RankedStrategy):
    """Ranks visual tokens before the language model, and keeps a fixed budget of them, or what each image needs.

    mass: keep the fewest tokens whose scores add up to this share, in (0, 1], of those of the whole image, and never
        more than the budget: an image whose importance is in few places costs less. Which tokens they are is up to the
        subclass. 1 and None keep the budget.
    least: with `mass`, the fewest that are kept, as a fraction of the visual tokens.
    """

    mass: float | None = field(default=None, kw_only=True)
    least: float = field(default=0.05, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.mass is None:
            return
        check_mass(name, self.mass)
        if not isinstance(self.least, (int, float)) or isinstance(self.least, bool) or not 0 <= self.least <= 1:
            raise SettingError(
                f"{name}: least={self.least!r} is not a fraction of the visual tokens; write a number in [0, 1]."
            )
        if self.keep_ratio is not None and self.least > self.keep_ratio:
            raise SettingError(
                f"{name}: least={self.least!r} is more than keep_ratio={self.keep_ratio!r}, the most that may be kept. "
                f"Write a lower least, or a higher keep_ratio."
            )

    def needed(self, scores: Float[Tensor, " visual"]) -> int:
        """How many tokens to keep of an image with these scores. With `mass`, a negative score raises PruningError."""
        most = self.budget(len(scores))
        if self.mass is None:
            return most
        return min(most, max(budget(len(scores), self.least, None), n_reaching(scores, self.mass)))


@dataclass(frozen=True)
class ScoreStrategy(AdaptiveStrategy):
    """Keeps the tokens with the highest importance scores; a subclass needs only `score`."""

    @abstractmethod
    def score(self, tokens: VisualTokens) -> Float[Tensor, " visual"]:
        """One importance score per visual token, higher = keep. NaN raises PruningError."""

    def select(self, tokens: VisualTokens) -> Selection:
        scores = self.score(tokens)
        n_kept = self.needed(scores)
        return Selection.first(self.ranked(scores, n_kept, tokens), n_kept, scores)


@dataclass(frozen=True)
class AttentionStrategy(Strategy):
    """Reads the attention of one encoder layer of the vision tower, `tokens.vision_attention`.

    layer: an encoder layer, counted like a Python index; None is the one whose output the projector gets.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"vision_attention"})

    layer: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer is not None and (not isinstance(self.layer, int) or isinstance(self.layer, bool)):
            raise SettingError(
                f"{type(self).__name__}: layer={self.layer!r} is not an encoder layer; write layer=-2, or None."
            )

    @property
    def attention_layer(self) -> int | None:
        return self.layer


@dataclass(frozen=True)
class VideoStrategy(Strategy):
    """Compares the frames of a video, `tokens.frames`, which share one budget as the strategy decides.

    Its budget is one per video. An image, and a video of one frame, raise PruningError. Newline and CLS tokens stand
    beside the frames and count too; `Frames.kept_beside` says which of them to keep.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"frames"})
    whole_image: ClassVar[bool] = True
    budgets: ClassVar[tuple[str, ...]] = ("video",)

    budget_per: Literal["image", "tile", "video"] = "video"


@dataclass(frozen=True)
class StagedStrategy(Strategy):
    """Prunes inside the language model too: in stages, and by skipping whole decoder layers.

    `select` decides which tokens enter it. `select_at` reads `tokens.attention` if `needs` has "text_attention".
    """

    @abstractmethod
    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        """The stages in a language model of `n_layers`, by ascending layer."""

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        """Choose the tokens of one image that are left from a stage on, and what is merged into them.

        Returns a Selection over `tokens`: its indices count within the tokens that were left before. Without an
        override, the tokens are left whose scores in the previous selection are highest.
        """
        if tokens.scores is None:
            raise PruningError("a strategy with stages must give scores: return Selection(kept, n_visual, scores).")
        return Selection.best(tokens.scores, stage.budget(tokens.n_visual))

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        """The decoder layers, of `n_layers`, that are not executed at all, by ascending number."""
        return ()


@dataclass(frozen=True)
class TowerStrategy(Strategy):
    """Prunes between the encoder layers of the vision tower. Its `select` must not keep a token that the tower has
    dropped: `tokens.left_in_tower` has those that are left."""

    needs: ClassVar[frozenset[str]] = frozenset({"left_in_tower"})

    @abstractmethod
    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        """The encoder layers after which `select_in_tower` is called, ascending, of the `n_layers` after which tokens
        can be dropped: all before the one whose output the projector gets, without those that attend within windows."""

    @abstractmethod
    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        """Choose the visual tokens of one tile that are left after an encoder layer. Returns a Selection over `tokens`:
        its indices count within those that were left before. Its scores are in the tokens of the next call."""

    def tower_budget(self, n_visual: int, n_image: int | None) -> int:
        """How many of a tile's `n_visual` tokens to leave in the tower, of an image with `n_image`, None if the tower
        cannot know. Over the tiles of an image that may be more than the budget, never less."""
        return tile_share(n_visual, n_image, self.keep_ratio, self.keep)


@dataclass(frozen=True)
class PatchStrategy(Strategy):
    """Prunes before the vision tower: it encodes only the patches of the visual tokens that are left."""

    needs: ClassVar[frozenset[str]] = frozenset({"left_before_tower"})

    @abstractmethod
    def select_patches(self, tokens: PatchTokens) -> Selection:
        """Choose the visual tokens of one image or video whose patches are encoded."""

    def select(self, tokens: VisualTokens) -> Selection:
        return Selection(tokens.left_before_tower.kept, tokens.n_visual, tokens.left_before_tower.scores)


def check_choice(owner: str, field: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise SettingError unless `value` is one of `choices`."""
    if value not in choices:
        raise SettingError(f"{owner}: {unknown(field, value, choices)} Write {field}={choices[0]!r}.")


def check_mass(owner: str, mass: object) -> None:
    """Raise SettingError unless `mass` is a share of a total."""
    if not isinstance(mass, (int, float)) or isinstance(mass, bool) or not 0 < mass <= 1:
        raise SettingError(f"{owner}: mass={mass!r} is not a share of the scores; write a number in (0, 1].")
