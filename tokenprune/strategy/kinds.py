"""Strategies that shrink the image, prune before the vision tower or between its layers, merge dropped tokens, or
compare the frames of a video."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.errors import SettingError
from tokenprune.selection import Selection, tile_share
from tokenprune.strategy.base import Strategy
from tokenprune.tokens.tower import PatchTokens, TowerTokens
from tokenprune.tokens.visual import VisualTokens


@dataclass(frozen=True)
class ResizeStrategy(Strategy):
    """Has a smaller version of each image encoded: the largest that fits the budget and keeps the aspect ratio."""

    needs: ClassVar[frozenset[str]] = frozenset({"shrunk"})
    budgets: ClassVar[tuple[str, ...]] = ("image",)

    def resized_budget(self, n_visual: int) -> int:
        """How many visual tokens the smaller version of an image with `n_visual` may have."""
        return self.budget(n_visual)

    def select(self, tokens: VisualTokens) -> Selection:
        """Keep all tokens of the smaller version."""
        return Selection(tokens.shrunk.kept, tokens.n_visual)


@dataclass(frozen=True)
class PatchStrategy(Strategy):
    """Prunes before the vision tower: the tower encodes only the patches of the visual tokens that are kept."""

    needs: ClassVar[frozenset[str]] = frozenset({"kept_before_tower"})

    @abstractmethod
    def select_patches(self, tokens: PatchTokens) -> Selection:
        """Choose the visual tokens of one image or video whose patches are encoded; for towers that are given video
        frames like images (GLM-V), of one frame."""

    def select(self, tokens: VisualTokens) -> Selection:
        """Keep these tokens. If a video's frames together exceed its budget, keep those with the highest scores."""
        return tokens.kept_before_tower.at_most(self.budget(tokens.n_visual))


@dataclass(frozen=True)
class TowerStrategy(Strategy):
    """Prunes between the encoder layers of the vision tower. Its `select` must not keep a token that was dropped in the
    tower: `tokens.kept_in_tower` has those that may be kept."""

    needs: ClassVar[frozenset[str]] = frozenset({"kept_in_tower"})

    def tower_layers(self, n_layers: int) -> tuple[int, ...]:
        """The encoder layers after which `select_in_tower` is called, ascending, out of the `n_layers` after which
        tokens can be dropped: all before the one whose output the projector gets, except those that attend within
        windows. By default, all of these."""
        return tuple(range(n_layers))

    @abstractmethod
    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        """Choose which visual tokens of one tile are left after an encoder layer. Returns a Selection over `tokens`:
        its indices count within the tokens that were left before. The next call gets its scores in `tokens`."""

    def tower_budget(self, n_visual: int, n_image: int | None) -> int:
        """How many of a tile's `n_visual` tokens to leave in the tower, for an image with `n_image`, None if the tower
        cannot know. Summed over an image's tiles, this may be more than the budget, never less."""
        return tile_share(n_visual, n_image, self.keep_ratio, self.keep)


@dataclass(frozen=True)
class MergingStrategy(Strategy):
    """Merges dropped tokens into kept ones.

    attention_bias: "size" is ToMe's proportional attention (https://arxiv.org/abs/2210.09461): in every decoder layer,
        log(size) is added to the attention logits of a kept token's key, where size is the number of tokens it stands
        for (`Selection.sizes`). It is then attended to as strongly as that many identical tokens at its position. Does
        not work with FlashAttention, which takes no such masks, or with layers that have a state. None adds nothing, as
        in the papers.
    """

    # Keyword-only, so that a subclass's own settings keep their positions.
    attention_bias: Literal["size"] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention_bias not in (None, "size"):
            raise SettingError(
                f"{type(self).__name__}: attention_bias={self.attention_bias!r} is not known; write "
                f'attention_bias="size", or None.'
            )

    @property
    def biases_attention(self) -> bool:
        """Whether the language model attends to kept tokens in proportion to how many they stand for."""
        return self.attention_bias == "size"


Choose = Callable[[VisualTokens, int], tuple[Float[Tensor, "frames places"], Int[Tensor, " order"]]]


@dataclass(frozen=True)
class VideoStrategy(Strategy):
    """Compares the frames of a video, `tokens.frames`, and shares one budget among them.

    The budget is per video. Images, and videos of one frame, raise PruningError. Newline and CLS tokens belong to no
    frame but count too; `Frames.kept_extra_tokens` says which of them to keep.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"frames"})
    whole_image: ClassVar[bool] = True
    budgets: ClassVar[tuple[str, ...]] = ("video",)

    budget_per: Literal["image", "tile", "video"] = "video"

    def filled(self, tokens: VisualTokens, choose: Choose) -> Selection:
        """Fill the budget with the tokens that show a place, in an order by `choose`.

        choose: from the tokens and how many of them show a place and are kept, their scores, and an order of which as
            many are kept; its indices are frame * places + place.
        """
        frames, n_visual = tokens.frames, tokens.n_visual
        extra = frames.kept_extra_tokens(self.budget(n_visual))
        n_kept = self.budget(n_visual) - len(extra)
        scores, order = choose(tokens, n_kept)
        in_frames = frames.frame_tokens.flatten()
        kept = torch.cat([in_frames[order[:n_kept]], extra]).sort().values
        # Extra tokens are not scored: they get the highest score.
        of_tokens = scores.amax().expand(n_visual).index_copy(0, in_frames, scores.flatten())
        return Selection(kept, n_visual, of_tokens)
