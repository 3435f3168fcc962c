"""Drops patches between the encoder layers of the vision tower, through callbacks that hooks.py puts on it.

Behind each layer that a strategy names in `tower_layers`, it is asked tile by tile which patches are left, and the
next layers get no others. Where the tiles of a batch have unequal numbers left, shorter ones are padded, and a mask
keeps the padding out of the attention. Behind the tower the survivors are put back at their places of the grid, so
that the model finds the shapes that it expects; at the other places stand zeros, which are dropped before the language
model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.towers.layers import N_TAPS, Projected, TowerLayers, widened
from tokenprune.engine.call import PerThread, named_arguments, uncompiled
from tokenprune.errors import PruningError, SettingError
from tokenprune.report import StageReport
from tokenprune.selection import Selection
from tokenprune.strategy import Strategy, TowerStrategy
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.visual import LeftInTower, TowerTokens


@dataclass(frozen=True, eq=False)
class Survivors:
    """Which patches of every tile stand behind the prefix tokens of the hidden states; those not `real` are padding, of
    which there is none where `real` is None."""

    patches: Int[Tensor, "tiles left"]
    real: Bool[Tensor, "tiles left"] | None

    def mask(self, hidden: Float[Tensor, "tiles tokens width"]) -> Tensor | None:
        """(tiles, 1, tokens, tokens), to be added to the attention's logits; None if nothing is padding."""
        if self.real is None:
            return None
        n_tiles, n_tokens, _ = hidden.shape
        prefix = self.real.new_ones(n_tiles, n_tokens - self.real.shape[1])
        keys = torch.cat([prefix, self.real], 1)[:, None, None].to(hidden.device)
        closed = torch.finfo(hidden.dtype).min
        return hidden.new_zeros(keys.shape).masked_fill(~keys, closed).expand(-1, -1, n_tokens, -1)

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
    were scored before the first was dropped; and what was left from which encoder layer on."""

    def __init__(self, n_patches: int, device: torch.device) -> None:
        self.left = torch.arange(n_patches, device=device)
        self.scores: Tensor | None = None
        self.last: Tensor | None = None
        self.stages: list[StageReport] = []

    def narrow(self, selection: Selection, layer: int) -> None:
        """To what a strategy selects of `left`, from encoder layer `layer` on."""
        scores = selection.scores
        if scores is not None and not self.stages:
            self.last = scores
        elif scores is not None and self.last is not None:
            self.last = self.last.index_copy(0, self.left, scores)
        if len(selection.kept) == len(self.left):
            self.scores = scores
        else:
            self.scores = None if scores is None else scores[selection.kept]
            self.left = self.left[selection.kept]
            self.stages.append(StageReport(layer, self.left))


class Call(PerThread):
    """The call of the tower that is in progress.

    layer: the encoder layer that runs, if the strategy is asked about it and was not yet.
    heard: what its taps returned so far.
    kept: of each tile, which of the patches that the layer was given are kept.
    tiles: those of the call; none before the first layer that the strategy is asked about.
    survivors: what stands in the hidden states; None as long as that is everything.
    entered: by encoder layer, the survivors that it was given.
    """

    def __init__(self) -> None:
        self.layer: int | None = None
        self.heard: dict[str, Tensor] = {}
        self.kept: list[Tensor] = []
        self.tiles: list[Tile] = []
        self.survivors: Survivors | None = None
        self.entered: dict[int, Survivors] = {}
        self.n_patches = 0


class TowerPruning:
    """Asks a strategy that needs "left_in_tower", and shortens what the encoder layers get; idle for any other.

    Raises SettingError for a strategy that also needs the attention of one encoder layer over all patches.
    """

    def __init__(self, strategy: Strategy, adapter: ModelAdapter) -> None:
        self.strategy, self.adapter = strategy, adapter
        prunes = isinstance(strategy, TowerStrategy)
        if not prunes and "left_in_tower" in strategy.needs:
            raise SettingError(
                f"{type(strategy).__name__}.needs has left_in_tower, and the strategy does not prune in the tower. "
                f"Derive it from tokenprune.strategy.TowerStrategy."
            )
        self.tower: TowerLayers | None = adapter.tower_layers if prunes else None
        self.asked = strategy.tower_layers(self.tower.n_before) if prunes and self.tower is not None else ()
        self._call = Call()
        if self.tower is None:
            return
        self.n_prefix, self.scale = adapter.n_prefix, adapter.attention_scale
        if "vision_attention" in strategy.needs:
            raise SettingError(
                f"{type(strategy).__name__}.needs has both left_in_tower and vision_attention, and the tower does not "
                f"attend to what it drops. Read tokens.attention in select_in_tower instead."
            )
        if not set(self.asked) <= set(range(self.tower.n_before)):
            raise SettingError(
                f"{type(strategy).__name__}.tower_layers gave {self.asked}; the layers before the one whose output "
                f"the projector gets are 0..{self.tower.n_before - 1}."
            )

    @property
    def layers(self) -> dict[int, nn.Module]:
        """The encoder layers whose arguments may be shortened, by number: all behind the first that is asked about."""
        if self.tower is None or not self.asked:
            return {}
        return {n: layer for n, layer in enumerate(self.tower.layers) if n > self.asked[0]}

    @property
    def taps(self) -> list[tuple[str, nn.Module]]:
        """The modules to be heard, and what they return."""
        return [] if self.tower is None else [tap for n in self.asked for tap in self.tower.taps(n).items()]

    @uncompiled
    def before_tower(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._call.__init__()
        self._call.layer = self.asked[0] if self.asked else None

    def after_tap(self, name: str, output: Tensor) -> None:
        call, tower = self._call, self.tower
        if call.layer is None or tower is None:  # as in a backward pass that runs the layer again
            return
        call.heard[name] = output.detach()
        if len(call.heard) == N_TAPS:  # asked now, while a CPU has them in its cache
            self._ask(call.layer, tower.projected(call.heard))
            call.layer, call.heard = None, {}

    def before_layer(self, number: int, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The arguments of an encoder layer, shortened; None if they may stay."""
        call, tower = self._call, self.tower
        assert tower is not None
        if torch.is_grad_enabled() and tower.recomputed(module):
            raise PruningError(
                f"{type(self.strategy).__name__} prunes inside the vision tower, and activation checkpointing runs "
                f"encoder layers again in the backward pass. Switch it off, call eval() on the tower, or use a newer "
                f"transformers."
            )
        hidden, *rest = args
        if call.kept:
            hidden = self._narrowed(hidden)
        call.layer = number if number in self.asked else None
        if call.survivors is None:
            return None
        call.entered[number] = call.survivors
        named = named_arguments(module, (hidden, *rest), kwargs)
        return tower.arguments(named, hidden, call.survivors.mask(hidden))

    def _ask(self, layer: int, projected: Projected) -> None:
        """Asks the strategy which patches of each tile to keep behind `layer`."""
        call = self._call
        n_tiles, _, n_tokens, _ = projected[0].shape
        if not call.tiles:
            call.n_patches = n_tokens - self.n_prefix
            call.tiles = [Tile(call.n_patches, projected[0].device) for _ in range(n_tiles)]
        before = [len(tile.left) for tile in call.tiles]
        kept = [self._kept(layer, i, tile, projected) for i, tile in enumerate(call.tiles)]
        call.kept = kept if [len(tile.left) for tile in call.tiles] != before else []

    def _narrowed(self, hidden: Float[Tensor, "tiles tokens width"]) -> Float[Tensor, "tiles left width"]:
        """The hidden states of what was kept behind the layer before."""
        call, n_prefix, device = self._call, self.n_prefix, hidden.device
        left, kept, call.kept = [tile.left.to(device) for tile in call.tiles], call.kept, []
        places, counts = pad_sequence(kept, batch_first=True).to(device), torch.tensor([len(tile) for tile in left])
        real = torch.arange(places.shape[1]) < counts[:, None]
        padded = min(map(len, left)) < places.shape[1]
        call.survivors = Survivors(pad_sequence(left, batch_first=True), real.to(device) if padded else None)
        prefix = torch.arange(n_prefix, device=device).expand(len(hidden), -1)
        tile = torch.arange(len(hidden), device=device)[:, None]  # whole rows are copied, as gather does not
        return hidden[tile, torch.cat([prefix, n_prefix + places], 1)]

    def _kept(self, layer: int, i: int, tile: Tile, projected: Projected) -> Int[Tensor, " kept"]:
        """Which of a tile's patches that are left the strategy keeps behind `layer`."""
        assert self.tower is not None
        n_left, n_prefix = len(tile.left), self.n_prefix
        queries, keys, values = (part[i, :, : n_prefix + n_left] for part in projected)
        attention = VisionAttention(queries[None], keys[None], self.scale, n_prefix, Layout.raster((1, 1, n_left)))
        n_more = self.tower.n_before - layer - 1
        tokens = TowerTokens(layer, n_more, attention, values, tile.left, self._call.n_patches, tile.scores)
        assert isinstance(self.strategy, TowerStrategy)
        selection = self.strategy.select_in_tower(tokens)
        if not isinstance(selection, Selection) or selection.n_visual != n_left:
            raise PruningError(
                f"{type(self.strategy).__name__}.select_in_tower must return a Selection over the {n_left} patches "
                f"that are left."
            )
        tile.narrow(selection, layer + 1)
        return selection.kept

    @uncompiled
    def after_tower(self, module: nn.Module, args: Any, output: Any) -> Any:
        entered, n_patches = self._call.entered, self._call.n_patches
        self._call.__init__()
        if not entered:
            return None

        def whole(layer: int, hidden: Tensor) -> Tensor:
            return entered[layer].put_back(hidden, n_patches) if layer in entered else hidden

        assert self.tower is not None
        return widened(output, len(self.tower.layers), whole)

    def outcomes(self) -> list[LeftInTower]:
        """What the call of the tower that is in progress left of every tile."""
        return [LeftInTower(tile.left, tile.last, tuple(tile.stages)) for tile in self._call.tiles]
