"""Strategies that prune before the vision tower, and between its layers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from tokenprune.selection import Selection, tile_share
from tokenprune.strategy.base import Strategy
from tokenprune.tokens.tower import PatchTokens, TowerTokens
from tokenprune.tokens.visual import VisualTokens


@dataclass(frozen=True)
class PatchStrategy(Strategy):
    """Prunes before the vision tower: the tower encodes only the patches of the visual tokens that are kept."""

    needs: ClassVar[frozenset[str]] = frozenset({"kept_before_tower"})

    @abstractmethod
    def select_patches(self, tokens: PatchTokens) -> Selection:
        """Choose the visual tokens of one image or video whose patches are encoded; of one frame of a video, where the
        tower is given frames like images (GLM-V)."""

    def select(self, tokens: VisualTokens) -> Selection:
        """Keep them. Of frames that together exceed the video's budget, those with the highest scores."""
        return tokens.kept_before_tower.at_most(self.budget(tokens.n_visual))


@dataclass(frozen=True)
class TowerStrategy(Strategy):
    """Prunes between the encoder layers of the vision tower. Its `select` must not keep a token that was dropped in the
    tower: `tokens.kept_in_tower` has the others."""

    needs: ClassVar[frozenset[str]] = frozenset({"kept_in_tower"})

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
