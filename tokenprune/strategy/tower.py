"""Strategies that shrink the image, prune before the vision tower, and between its layers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

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
