"""Drops patches between the encoder layers of a vision tower that takes a batch of tiles.

After each layer that a strategy names in `tower_layers`, it selects tile by tile which visual tokens are left, and the
next layers get only their patches. If the tiles of a batch have unequal numbers left, the shorter ones are padded, and
a mask keeps the padding out of the attention. A merged patch is attended to like the patches that it stands for: the
logarithm of their number is added to its logit. After the tower, the remaining patches are put back in their places
in the grid, so that the model finds the shapes that it expects; the other places hold zeros, which are dropped before
the language model.
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
from tokenprune.adapters.conventions import recomputes, recomputes_hooks
from tokenprune.adapters.towers.attention import Projected
from tokenprune.adapters.towers.layers import TowerLayers, restore_patches
from tokenprune.adapters.wrappers import CHECKPOINTED
from tokenprune.engine.arguments import named_arguments
from tokenprune.engine.call import CallContext
from tokenprune.engine.compiling import dynamo_disabled
from tokenprune.engine.recording import Register
from tokenprune.engine.tower.tiles import (
    Tile,
    TileSelection,
    changes,
    check_runs_pruned,
    merged_patches,
    patches_of,
    spread,
)
from tokenprune.errors import PruningError
from tokenprune.selection import Selection
from tokenprune.strategy import Strategy
from tokenprune.tokens.tower import KeptInTower


@dataclass(frozen=True, eq=False)
class RemainingPatches:
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


class TowerCall:
    """One call of the tower.

    patches: those of each visual token of a tile; None if each has one.
    layer: the encoder layer that runs, if the strategy selects after it and has not yet.
    captured: what its capture points returned so far.
    kept: of each tile, which of the visual tokens that the layer was given are kept, and what is merged into them.
    tiles: those of the call; none before the first layer that the strategy selects after.
    remaining: the patches that the hidden states hold; None as long as that is everything, in raster order. From then
        on the patches of a visual token follow one another.
    mask: of the layer that runs.
    entered: by encoder layer, the patches that it was given.
    """

    def __init__(self, first_layer: int, patches: Int[Tensor, "visual patches"] | None) -> None:
        self.patches = patches
        self.patches_per_token = 1 if patches is None else patches.shape[1]
        self.layer: int | None = first_layer
        self.captured: dict[str, Tensor] = {}
        self.kept: list[Selection] = []
        self.tiles: list[Tile] = []
        self.remaining: RemainingPatches | None = None
        self.mask: Tensor | None = None
        self.entered: dict[int, RemainingPatches] = {}

    @property
    def n_patches(self) -> int:
        return self.tiles[0].n_visual * self.patches_per_token

    def outcomes(self) -> list[KeptInTower]:
        """What is left of every tile."""
        return [tile.outcome() for tile in self.tiles]

    def of_tokens(self, tokens: Int[Tensor, " kept"]) -> Int[Tensor, " patches"]:
        """The patches of visual tokens, within the tile."""
        return tokens if self.patches is None else self.patches.to(tokens.device)[tokens].flatten()

    def places(self, tokens: Int[Tensor, " kept"]) -> Int[Tensor, " patches"]:
        """The same, within the hidden states."""
        return self.of_tokens(tokens) if self.remaining is None else patches_of(tokens, self.patches_per_token)


class BatchPruning:
    """Lets a TowerStrategy select between encoder layers, and shortens what those layers get."""

    def __init__(self, strategy: Strategy, adapter: ModelAdapter, layers: TowerLayers, context: CallContext) -> None:
        self.strategy, self.adapter, self.tower = strategy, adapter, layers
        self._context = context
        self.selecting = TileSelection(strategy, adapter, layers)
        self.n_prefix = self.selecting.n_prefix
        self._n_points = len(layers.capture_points(self.selecting.after[0]))

    def register(self, register: Register) -> list[nn.Module]:
        """Register the hooks; return the modules that show attention. The recorder's hooks on the tower come before:
        they read what was dropped."""
        captured, after = [], self.selecting.after
        for tower in self.adapter.vision_towers:
            register(tower.register_forward_pre_hook(self.before_tower, with_kwargs=True))
            register(tower.register_forward_hook(self.after_tower))
        for number in after:
            for name, module in self.tower.capture_points(number).items():
                register(module.register_forward_hook(partial(self.after_capture, name)))
                captured.append(module)
        for number, layer in enumerate(self.tower.layers):
            if number > after[0]:
                masked = self.tower.masked(number)  # asked once: a wrapper put around the layer later takes anything
                before = partial(self.before_layer, number, masked is not layer)
                register(layer.register_forward_pre_hook(before, with_kwargs=True))
                if masked is not layer:
                    register(masked.register_forward_pre_hook(self.before_attention, with_kwargs=True))
        return captured

    @dynamo_disabled
    def before_tower(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._context.tower = None
        if self._context.encoding is None and CHECKPOINTED not in self.adapter.vision_tower._modules:
            return  # another model's call or the user's own, and not a backward pass that runs the tower again
        check_runs_pruned(self.strategy, module)
        self.selecting.check_kernel()
        patches = self.tower.patches
        of_tokens = None if patches is None else patches(named_arguments(module, args, kwargs))
        self._context.tower = TowerCall(self.selecting.after[0], of_tokens)

    @dynamo_disabled
    def after_capture(self, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        call = self._context.tower
        if call is None or call.layer is None:  # as in a backward pass that runs the layer again
            return
        call.captured[name] = output.detach()
        if len(call.captured) == self._n_points:  # now, while a CPU has them in its cache
            self._select(call, call.layer, self.tower.split_heads(call.captured))
            call.layer, call.captured = None, {}

    @dynamo_disabled
    def before_layer(self, number: int, within: bool, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The arguments of an encoder layer, shortened; None if they may stay. `within`: not the layer but its
        attention takes the mask."""
        call, tower = self._context.tower, self.tower
        if call is None:
            return None
        layer = tower.layers[number]  # or what was put around the module since
        if torch.is_grad_enabled() and (recomputes(layer) if within else recomputes_hooks(layer, module)):
            if CHECKPOINTED in layer._modules:
                other = "" if within else ", or call patch() again"
            else:
                other = ", or call eval() on the tower" + ("" if within else ", or use a newer transformers")
            raise PruningError(
                f"{type(self.strategy).__name__} prunes inside the vision tower, and activation checkpointing runs "
                f"encoder layers again in the backward pass. Switch it off{other}."
            )
        hidden, *rest = args
        if call.kept:
            hidden = self._prune_hidden(call, hidden)
        call.layer = number if number in self.selecting.after else None
        if call.remaining is None:
            return None
        call.entered[number] = call.remaining
        call.mask = call.remaining.mask(hidden)
        named = named_arguments(module, (hidden, *rest), kwargs)
        return tower.arguments(named, hidden, None if within else call.mask)

    @dynamo_disabled
    def before_attention(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The arguments of a layer's attention, for layers that take no mask themselves; None if they may stay."""
        call = self._context.tower
        return None if call is None or call.mask is None else (args, {**kwargs, "attention_mask": call.mask})

    @dynamo_disabled
    def after_tower(self, module: nn.Module, args: Any, output: Any) -> Any:
        call, self._context.tower = self._context.tower, None
        if call is None or not call.entered:
            return None

        def put_back(layer: int, hidden: Tensor) -> Tensor:
            return call.entered[layer].put_back(hidden, call.n_patches) if layer in call.entered else hidden

        return restore_patches(output, len(self.tower.layers), put_back)

    def _select(self, call: TowerCall, layer: int, projected: Projected) -> None:
        """Let the strategy select which visual tokens of each tile to keep after `layer`."""
        n_tiles, _, n_tokens, _ = projected[0].shape
        device, n_prefix = projected[0].device, self.n_prefix
        if not call.tiles:
            n_visual = (n_tokens - n_prefix) // call.patches_per_token
            n_image = n_visual if self.tower.whole_images else None
            call.tiles = [Tile(n_visual, n_image, device) for _ in range(n_tiles)]
        if call.patches_per_token > 1 and call.remaining is None:
            prefix = torch.arange(n_prefix, device=device)
            order = torch.cat([prefix, n_prefix + call.of_tokens(call.tiles[0].left)])
            queries, keys, values = (part[:, :, order] for part in projected)
            projected = queries, keys, values
        kept = []
        for i, tile in enumerate(call.tiles):
            n_left = n_prefix + len(tile.left) * call.patches_per_token
            kept.append(self.selecting.select(layer, i, tile, *(part[i, :, :n_left] for part in projected)))
        call.kept = kept if any(map(changes, kept)) else []

    def _prune_hidden(
        self, call: TowerCall, hidden: Float[Tensor, "tiles tokens width"]
    ) -> Float[Tensor, "tiles left width"]:
        """The hidden states of what was kept after the layer before."""
        n_prefix, device = self.n_prefix, hidden.device
        selections, call.kept = call.kept, []
        left = [call.of_tokens(tile.left.to(device)) for tile in call.tiles]
        kept = [call.places(selection.kept.to(device)) for selection in selections]
        places, counts = pad_sequence(kept, batch_first=True), torch.tensor([len(tile) for tile in left], device="cpu")
        real = torch.arange(places.shape[1], device="cpu") < counts[:, None]
        padded = min(map(len, left)) < places.shape[1]
        sizes = [spread(tile.sizes.to(device), call.patches_per_token) for tile in call.tiles]
        merged = any(tile.merged_from is not None for tile in call.tiles)
        remaining = RemainingPatches(
            pad_sequence(left, batch_first=True),
            real.to(device) if padded else None,
            pad_sequence(sizes, batch_first=True, padding_value=1.0).to(device) if merged else None,
        )
        prefix = torch.arange(n_prefix, device=device).expand(len(hidden), -1)
        tile = torch.arange(len(hidden), device=device)[:, None]  # whole rows are copied, as gather does not
        pruned = hidden[tile, torch.cat([prefix, n_prefix + places], 1)]
        for i, selection in enumerate(selections):
            if selection.merged is not None:
                patches = hidden[i, n_prefix : n_prefix + selection.n_visual * call.patches_per_token]
                if call.remaining is None and call.patches is not None:
                    patches = patches[call.patches.flatten().to(device)]
                means = merged_patches(selection, patches)
                pruned[i, n_prefix : n_prefix + len(means)] = means
        call.remaining = remaining
        return pruned
