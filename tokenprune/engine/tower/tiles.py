"""What a strategy selects between encoder layers, tile by tile, in whatever form the layers take the tiles."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import CHECKPOINTED
from tokenprune.adapters.towers.layers import KERNELS, BatchLayers, RowLayers, kernel_of
from tokenprune.engine.select import explained_nan
from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Selection, StageReport
from tokenprune.strategy import Strategy, TowerStrategy
from tokenprune.strategy.base import check_is_selection, strategy_call
from tokenprune.strategy.staged import check_layers
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.tower import KeptInTower, TowerTokens, sizes_of, token_means


class Tile:
    """What is left of one tile so far.

    n_visual: the number of visual tokens of the whole tile.
    n_image: the number of visual tokens of the image that the tile is part of; None if the tower cannot know.
    left: the visual tokens that are left.
    entered: the visual tokens that entered the tower; None for all.
    scores: the scores of the tokens left, from the last selection; None if it gave none.
    merged_from: how many visual tokens each of the tokens left stands for; None if none has been merged.
    last: the last score of every visual token; None unless all were scored before the first was dropped.
    stages: what was left from which encoder layer on.
    """

    def __init__(self, n_visual: int, n_image: int | None, device: torch.device, left: Tensor | None = None) -> None:
        self.n_visual, self.n_image = n_visual, n_image
        self.entered, self.left = left, torch.arange(n_visual, device=device) if left is None else left
        self.scores: Tensor | None = None
        self.merged_from: Tensor | None = None
        self.last: Tensor | None = None
        self.stages: list[StageReport] = []

    @property
    def sizes(self) -> Float[Tensor, " left"]:
        """How many visual tokens each of the tokens left stands for."""
        return sizes_of(self.left, self.merged_from)

    def keep(self, selection: Selection, layer: int) -> None:
        """Keep what a strategy selects from `left`, from encoder layer `layer` on."""
        scores = selection.scores
        if scores is not None and (self.last is not None or not self.stages):
            before = scores.new_full((self.n_visual,), -torch.inf) if self.last is None else self.last
            self.last = scores if len(scores) == self.n_visual else before.index_copy(0, self.left, scores)
        if not changes(selection):
            self.scores = scores
            return
        self.scores = None if scores is None else scores[selection.kept]
        left, merged = self.left[selection.kept], None
        if selection.merged is not None:
            merged = selection.merged.in_image(self.left, torch.arange(len(left), device=left.device))
        if self.merged_from is not None or selection.merged is not None:
            self.merged_from = selection.sizes(self.merged_from)
        self.left = left
        self.stages.append(StageReport(layer, left, None, merged))

    def outcome(self) -> KeptInTower:
        """What is left of the tile."""
        return KeptInTower(self.left, self.n_visual, self.last, tuple(self.stages), self.merged_from, self.entered)


def changes(selection: Selection | None) -> bool:
    """Whether visual tokens are dropped, or merged into others."""
    return selection is not None and (selection.merged is not None or len(selection.kept) < selection.n_visual)


def check_runs_pruned(strategy: Strategy, tower: nn.Module) -> None:
    """Raise PruningError if the backward pass will run the inside of `tower` again, past the hooks on it."""
    if torch.is_grad_enabled() and CHECKPOINTED in tower._modules:
        raise PruningError(
            f"{type(strategy).__name__} prunes in the vision tower, and activation checkpointing was put around all of "
            f"it before patch(), so the backward pass would run it unpruned. Put it around the encoder layers, or "
            f"around the tower after patch()."
        )


class TileSelection:
    """Asks a TowerStrategy which visual tokens of a tile are left after an encoder layer.

    after: the layers after which it selects.

    Raises SettingError for a strategy that is no TowerStrategy, that also needs the attention of one encoder layer over
    all patches, or that names layers after which nothing can be dropped.
    """

    def __init__(self, strategy: Strategy, adapter: ModelAdapter, layers: BatchLayers | RowLayers) -> None:
        name = type(strategy).__name__
        if not isinstance(strategy, TowerStrategy):
            raise SettingError(
                f"{name}.needs has kept_in_tower, which only a TowerStrategy can have. Derive it from "
                f"tokenprune.strategy.TowerStrategy."
            )
        if "vision_attention" in strategy.needs:
            raise SettingError(
                f"{name}.needs has both kept_in_tower and vision_attention, but the tower does not attend to what it "
                f"has dropped. Read tokens.attention in select_in_tower instead."
            )
        n_layers = len(layers.after)
        chosen = strategy.tower_layers(n_layers)
        check_layers(strategy, "tower_layers", chosen)
        numbers = [number for number in range(n_layers) if number in chosen]
        if not numbers or list(chosen) != numbers:
            raise SettingError(
                f"{name}.tower_layers returned {chosen}; in this tower, visual tokens can be dropped after {n_layers} "
                f"layers, counted 0..{n_layers - 1}. Return some of them, in ascending order."
            )
        self.strategy, self.n_prefix = strategy, adapter.tower.n_prefix
        self._adapter = adapter
        self._masked = isinstance(layers, BatchLayers) or layers.attention.attend is None
        self._scale = adapter.tower.scale(adapter.vision_tower)
        self.after = tuple(layers.after[number] for number in numbers)
        self._n_later_layers = {layer: n_layers - number - 1 for number, layer in enumerate(layers.after)}

    def check_kernel(self) -> None:
        """Raise PruningError if the tower's attention was since switched to one that does not take the masks."""
        kernel = kernel_of(self._adapter.vision_tower)
        if self._masked and kernel not in KERNELS:
            raise PruningError(
                f"{type(self.strategy).__name__} prunes inside the vision tower, whose attention was switched to "
                f"{kernel!r} after patch(), which does not take the masks. Switch the tower back to sdpa or eager "
                f"attention, or use a strategy that prunes after the tower, such as FoPru."
            )

    def select(
        self,
        layer: int,
        number: int,
        tile: Tile,
        queries: Float[Tensor, "heads tokens width"],
        keys: Float[Tensor, "heads tokens width"],
        values: Float[Tensor, "heads tokens width"],
    ) -> Selection:
        """Let tile `number` of the call keep what the strategy selects after `layer`. The tensors hold the prefix
        tokens, then the patches of one remaining visual token after the other."""
        n_left, n_prefix = len(tile.left), self.n_prefix
        per_token = (keys.shape[1] - n_prefix) // n_left
        layout = Layout(((1, 1, n_left),), to_tokens=token_means(per_token))
        attention = VisionAttention(queries[None], keys[None], self._scale, n_prefix, layout)
        tokens = TowerTokens(
            layer,
            self._n_later_layers[layer],
            attention,
            values,
            tile.left,
            tile.n_visual,
            tile.n_image,
            tile.scores,
            tile.merged_from,
        )
        where, read = f"image tile {number}", (values, queries, keys)
        with explained_nan(self.strategy, where, values), strategy_call(self.strategy, "select_in_tower", *read):
            selection = self.strategy.select_in_tower(tokens)
        check_is_selection(self.strategy, "select_in_tower", selection, n_left, "that are left")
        tile.keep(selection, layer + 1)
        return selection


def merged_patches(selection: Selection, patches: Float[Tensor, "patches width"]) -> Float[Tensor, "left width"]:
    """The patches of the visual tokens that a selection keeps, with others merged in. The patches of a token follow one
    another."""
    assert selection.merged is not None
    tokens = patches.reshape(selection.n_visual, -1)
    return selection.merged.apply(tokens, selection.kept).view(-1, patches.shape[1])


def spread(sizes: Float[Tensor, " left"], per_token: int) -> Float[Tensor, " patches"]:
    """Repeat the sizes of visual tokens for their patches, `per_token` each."""
    return sizes if per_token == 1 else sizes.repeat_interleave(per_token)


def patches_of(tokens: Int[Tensor, " kept"], per_token: int) -> Int[Tensor, " patches"]:
    """The patches of visual tokens, where each token has `per_token` consecutive ones."""
    if per_token == 1:
        return tokens
    return (tokens[:, None] * per_token + torch.arange(per_token, device=tokens.device)).flatten()
