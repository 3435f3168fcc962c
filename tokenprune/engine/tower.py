"""Drops patches between the encoder layers of the vision tower.

After each layer that a strategy names in `tower_layers`, it selects tile by tile which patches are left, and the next
layers get only those. Where the tiles of a batch have unequal numbers left, shorter ones are padded, and a mask keeps
the padding out of the attention. A patch that others were merged into is attended to as that many equal patches would
be: the logarithm of their number is added to its logit. After the tower the survivors are put back at their places in
the grid, so that the model finds the shapes that it expects; the other places hold zeros, which are dropped before the
language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import recomputes_hooks
from tokenprune.adapters.towers.layers import N_CAPTURED, Projected, restore_patches
from tokenprune.engine.call import CallContext, named_arguments
from tokenprune.engine.compiling import dynamo_disabled
from tokenprune.engine.recording import Register
from tokenprune.engine.select import explained_nan
from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Selection, StageReport
from tokenprune.strategy import Strategy, TowerStrategy
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.tower import LeftInTower, TowerTokens


@dataclass(frozen=True, eq=False)
class Survivors:
    """Which patches of every tile follow the prefix tokens in the hidden states; those not `real` are padding, of which
    there is none where `real` is None. `sizes`: how many patches each stands for; None if none has been merged."""

    patches: Int[Tensor, "tiles left"]
    real: Bool[Tensor, "tiles left"] | None
    sizes: Float[Tensor, "tiles left"] | None = None

    def mask(self, hidden: Float[Tensor, "tiles tokens width"]) -> Tensor | None:
        """(tiles, 1, tokens, tokens), to be added to the attention's logits; None if there is nothing to add."""
        if self.real is None and self.sizes is None:
            return None
        n_tiles, n_tokens, _ = hidden.shape
        keys = hidden.new_zeros(n_tiles, n_tokens)
        patches = keys[:, n_tokens - self.patches.shape[1] :]
        if self.sizes is not None:
            patches += self.sizes.log().to(hidden)
        if self.real is not None:
            patches.masked_fill_(~self.real.to(hidden.device), torch.finfo(hidden.dtype).min)
        return keys[:, None, None].expand(-1, -1, n_tokens, -1)

    def put_back(self, hidden: Float[Tensor, "tiles tokens width"], n_patches: int) -> Float[Tensor, "tiles all width"]:
        """The hidden states with every patch at its own place, and zeros where one was dropped."""
        n_prefix = hidden.shape[1] - self.patches.shape[1]
        places = n_prefix + self.patches
        if self.real is not None:
            places = places.masked_fill(~self.real, n_prefix + n_patches)  # one place more, for all padding
        whole = hidden.new_zeros(len(hidden), n_prefix + n_patches + (self.real is not None), hidden.shape[2])
        whole[:, :n_prefix] = hidden[:, :n_prefix]
        index = places[..., None].expand(-1, -1, hidden.shape[2]).to(hidden.device)
        return whole.scatter_(1, index, hidden[:, n_prefix:])[:, : n_prefix + n_patches]


class Tile:
    """What is left of one tile so far: its patches and their scores; the last score of every patch of the tile, if all
    were scored before the first was dropped; how many patches each stands for, if any were merged; and what was left
    from which encoder layer on."""

    def __init__(self, n_patches: int, device: torch.device) -> None:
        self.left = torch.arange(n_patches, device=device)
        self.scores: Tensor | None = None
        self.sizes: Tensor | None = None
        self.last: Tensor | None = None
        self.stages: list[StageReport] = []

    def keep(self, selection: Selection, layer: int) -> None:
        """Keep what a strategy selects of `left`, from encoder layer `layer` on."""
        scores = selection.scores
        if scores is not None and not self.stages:
            self.last = scores
        elif scores is not None and self.last is not None:
            self.last = self.last.index_copy(0, self.left, scores)
        if not changes(selection):
            self.scores = scores
        else:
            self.scores = None if scores is None else scores[selection.kept]
            left, merged = self.left[selection.kept], None
            if selection.merged is not None:
                merged = selection.merged.of_whole(self.left, torch.arange(len(left), device=left.device))
            if self.sizes is not None or selection.merged is not None:
                self.sizes = selection.sizes(self.sizes)
            self.left = left
            self.stages.append(StageReport(layer, left, None, merged))


def changes(selection: Selection) -> bool:
    """Whether patches are dropped, or merged into others."""
    return selection.merged is not None or len(selection.kept) < selection.n_visual


class TowerCall:
    """One call of the tower.

    layer: the encoder layer that runs, if the strategy selects after it and has not yet.
    captured: what its capture points returned so far.
    kept: of each tile, which of the patches that the layer was given are kept, and what is merged into them.
    tiles: those of the call; none before the first layer that the strategy selects after.
    survivors: what the hidden states hold; None as long as that is everything.
    entered: by encoder layer, the survivors that it was given.
    """

    def __init__(self, first_layer: int | None) -> None:
        self.layer = first_layer
        self.captured: dict[str, Tensor] = {}
        self.kept: list[Selection] = []
        self.tiles: list[Tile] = []
        self.survivors: Survivors | None = None
        self.entered: dict[int, Survivors] = {}
        self.n_patches = 0

    def outcomes(self) -> list[LeftInTower]:
        """What is left of every tile."""
        return [LeftInTower(tile.left, tile.last, tuple(tile.stages)) for tile in self.tiles]


class TowerPruning:
    """Lets a TowerStrategy select between encoder layers, and shortens what those layers get.

    Raises SettingError for a strategy of another kind, one that also needs the attention of one encoder layer over all
    patches, or one that names layers after which nothing can be dropped.
    """

    def __init__(self, strategy: Strategy, adapter: ModelAdapter, context: CallContext) -> None:
        assert adapter.tower_layers is not None  # `patch` has checked that the model offers "left_in_tower"
        if not isinstance(strategy, TowerStrategy):
            raise SettingError(
                f"{type(strategy).__name__}.needs has left_in_tower, which only a TowerStrategy can have. Derive it "
                f"from tokenprune.strategy.TowerStrategy."
            )
        self.strategy, self.adapter, self.tower = strategy, adapter, adapter.tower_layers
        self._context = context
        self.selects_after = strategy.tower_layers(self.tower.n_before)
        self.n_prefix, self.scale = adapter.tower.n_prefix, adapter.tower.scale(adapter.vision_tower)
        if "vision_attention" in strategy.needs:
            raise SettingError(
                f"{type(strategy).__name__}.needs has both left_in_tower and vision_attention, and the tower does not "
                f"attend to what it drops. Read tokens.attention in select_in_tower instead."
            )
        if not self.selects_after or not set(self.selects_after) <= set(range(self.tower.n_before)):
            raise SettingError(
                f"{type(strategy).__name__}.tower_layers gave {self.selects_after}; the layers before the one whose "
                f"output the projector gets are 0..{self.tower.n_before - 1}."
            )

    def register(self, register: Register) -> list[nn.Module]:
        """Register the hooks; return the modules that show attention. The recorder's hooks on the tower come before:
        they read what was dropped."""
        captured = []
        for tower in self.adapter.vision_towers:
            register(tower.register_forward_pre_hook(self.before_tower, with_kwargs=True))
            register(tower.register_forward_hook(self.after_tower))
        for number in self.selects_after:
            for name, module in self.tower.capture_points(number).items():
                register(module.register_forward_hook(partial(self.after_capture, name)))
                captured.append(module)
        for number, layer in enumerate(self.tower.layers):
            if number > self.selects_after[0]:
                register(layer.register_forward_pre_hook(partial(self.before_layer, number), with_kwargs=True))
        return captured

    @dynamo_disabled
    def before_tower(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._context.tower = TowerCall(self.selects_after[0])

    @dynamo_disabled
    def after_capture(self, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        call = self._context.tower
        if call is None or call.layer is None:  # as in a backward pass that runs the layer again
            return
        call.captured[name] = output.detach()
        if len(call.captured) == N_CAPTURED:  # select now, while a CPU has them in its cache
            self._select(call, call.layer, self.tower.split_heads(call.captured))
            call.layer, call.captured = None, {}

    @dynamo_disabled
    def before_layer(self, number: int, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The arguments of an encoder layer, shortened; None if they may stay."""
        call, tower = self._context.tower, self.tower
        if call is None:
            return None
        if torch.is_grad_enabled() and recomputes_hooks(module):
            raise PruningError(
                f"{type(self.strategy).__name__} prunes inside the vision tower, and activation checkpointing runs "
                f"encoder layers again in the backward pass. Switch it off, call eval() on the tower, or use a newer "
                f"transformers."
            )
        hidden, *rest = args
        if call.kept:
            hidden = self._prune_hidden(call, hidden)
        call.layer = number if number in self.selects_after else None
        if call.survivors is None:
            return None
        call.entered[number] = call.survivors
        named = named_arguments(module, (hidden, *rest), kwargs)
        return tower.arguments(named, hidden, call.survivors.mask(hidden))

    @dynamo_disabled
    def after_tower(self, module: nn.Module, args: Any, output: Any) -> Any:
        call, self._context.tower = self._context.tower, None
        if call is None or not call.entered:
            return None

        def put_back(layer: int, hidden: Tensor) -> Tensor:
            return call.entered[layer].put_back(hidden, call.n_patches) if layer in call.entered else hidden

        return restore_patches(output, len(self.tower.layers), put_back)

    def _select(self, call: TowerCall, layer: int, projected: Projected) -> None:
        """Let the strategy select which patches of each tile to keep after `layer`."""
        n_tiles, _, n_tokens, _ = projected[0].shape
        if not call.tiles:
            call.n_patches = n_tokens - self.n_prefix
            call.tiles = [Tile(call.n_patches, projected[0].device) for _ in range(n_tiles)]
        kept = [self._kept(call, layer, i, tile, projected) for i, tile in enumerate(call.tiles)]
        call.kept = kept if any(map(changes, kept)) else []

    def _prune_hidden(
        self, call: TowerCall, hidden: Float[Tensor, "tiles tokens width"]
    ) -> Float[Tensor, "tiles left width"]:
        """The hidden states of what was kept after the layer before."""
        n_prefix, device = self.n_prefix, hidden.device
        left, selections, call.kept = [tile.left.to(device) for tile in call.tiles], call.kept, []
        kept = [selection.kept for selection in selections]
        places, counts = pad_sequence(kept, batch_first=True).to(device), torch.tensor([len(tile) for tile in left])
        real = torch.arange(places.shape[1]) < counts[:, None]
        padded = min(map(len, left)) < places.shape[1]
        sizes = [
            torch.ones(len(one.left), device=device) if one.sizes is None else one.sizes.to(device)
            for one in call.tiles
        ]
        merged = any(tile.sizes is not None for tile in call.tiles)
        call.survivors = Survivors(
            pad_sequence(left, batch_first=True),
            real.to(device) if padded else None,
            pad_sequence(sizes, batch_first=True, padding_value=1.0).to(device) if merged else None,
        )
        prefix = torch.arange(n_prefix, device=device).expand(len(hidden), -1)
        tile = torch.arange(len(hidden), device=device)[:, None]  # whole rows are copied, as gather does not
        pruned = hidden[tile, torch.cat([prefix, n_prefix + places], 1)]
        for i, selection in enumerate(selections):
            if selection.merged is not None:
                patches = hidden[i, n_prefix : n_prefix + selection.n_visual]
                means = selection.merged.apply(patches, selection.kept)
                pruned[i, n_prefix : n_prefix + len(means)] = means
        return pruned

    def _kept(self, call: TowerCall, layer: int, i: int, tile: Tile, projected: Projected) -> Selection:
        """What the strategy keeps after `layer` of a tile's patches that are left."""
        n_left, n_prefix = len(tile.left), self.n_prefix
        queries, keys, values = (part[i, :, : n_prefix + n_left] for part in projected)
        attention = VisionAttention(queries[None], keys[None], self.scale, n_prefix, Layout.raster((1, 1, n_left)))
        n_more = self.tower.n_before - layer - 1
        tokens = TowerTokens(layer, n_more, attention, values, tile.left, call.n_patches, tile.scores, tile.sizes)
        with explained_nan(self.strategy, f"image tile {i}", values):
            selection = self.strategy.select_in_tower(tokens)
        if not isinstance(selection, Selection) or selection.n_visual != n_left:
            raise PruningError(
                f"{type(self.strategy).__name__}.select_in_tower must return a Selection over the {n_left} patches "
                f"that are left."
            )
        tile.keep(selection, layer + 1)
        return selection
