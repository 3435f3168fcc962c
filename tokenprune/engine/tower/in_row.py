"""Drops patches before the encoder layers, or between them, of a vision tower that takes the patches of all images in
one row.

before_tower   a PatchStrategy selects, by their pixels, the visual tokens of each image whose patches are encoded
before_layer   hidden states, rotary embeddings and the ends of segments are cut to what is left, in its order
after_capture  a TowerStrategy selects, frame by frame, which visual tokens the next layers get
after_output   the layers' output gets a row for every patch or visual token again, as the base model expects; the rows
               of dropped ones are zeros, which are dropped before the language model
after_tower    the same for the hidden states that the tower also returns
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import recomputes_hooks
from tokenprune.adapters.towers.layers import RowLayers
from tokenprune.adapters.towers.row import Row
from tokenprune.adapters.wrappers import CHECKPOINTED
from tokenprune.engine.arguments import hidden_states_first, named_arguments
from tokenprune.engine.call import CallContext
from tokenprune.engine.compiling import dynamo_disabled
from tokenprune.engine.recording import Register
from tokenprune.engine.tower.patches import patch_tokens, selected_patches
from tokenprune.engine.tower.proportional_attention import KEY_BIAS, ProportionalAttention
from tokenprune.engine.tower.row import RowCall
from tokenprune.engine.tower.tiles import TileSelection, changes, check_runs_pruned
from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Selection
from tokenprune.strategy import PatchStrategy, Strategy

#: The outputs of a tower that may hold what its layers made, as it is.
HIDDEN = {"last_hidden_state", "hidden_states"}


class RowPruning:
    """Lets a PatchStrategy select before the tower's layers, and a TowerStrategy between them; shortens what they get.

    between: the layers between which a TowerStrategy selects; None if the strategy only selects before them.

    Raises SettingError for a strategy of another kind.
    """

    def __init__(
        self, strategy: Strategy, adapter: ModelAdapter, between: RowLayers | None, context: CallContext
    ) -> None:
        self.strategy, self.adapter, self.between = strategy, adapter, between
        self.before = adapter.tower.row if "kept_before_tower" in strategy.needs else None
        self._context = context
        if self.before is not None and not isinstance(strategy, PatchStrategy):
            raise SettingError(
                f"{type(strategy).__name__}.needs has kept_before_tower, which only a PatchStrategy can have. Derive "
                f"it from tokenprune.strategy.PatchStrategy."
            )
        self.selecting = None if between is None else TileSelection(strategy, adapter, between)
        self._n_points = 0
        if between is not None and self.selecting is not None:
            self._n_points = len(between.capture_points(self.selecting.after[0]))

    def register(self, register: Register) -> list[nn.Module]:
        """Register the hooks; return the modules that show attention. The recorder's hooks on the tower come before:
        they read what was dropped."""
        captured: list[nn.Module] = []
        for tower in self.adapter.vision_towers:
            register(tower.register_forward_pre_hook(self.before_tower, with_kwargs=True))
            register(tower.register_forward_hook(self.after_tower))
            for number, layer in enumerate(self.adapter.tower.layers(tower)):
                register(layer.register_forward_pre_hook(partial(self.before_layer, number), with_kwargs=True))
            for module in () if self.adapter.tower.row is None else self.adapter.tower.row.output_modules(tower):
                register(module.register_forward_hook(self.after_output))
        if self.between is None or self.selecting is None:
            return captured
        for number in self.selecting.after:
            for name, module in self.between.capture_points(number).items():
                register(module.register_forward_hook(partial(self.after_capture, name)))
                captured.append(module)
        if (attend := self.between.attention.attend) is not None:
            for layer in self.between.layers:
                register(ProportionalAttention(self.between.attention.points(layer).attention, attend).install())
        return captured

    @dynamo_disabled
    def before_tower(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._context.row = None
        if self._context.encoding is None and CHECKPOINTED not in self.adapter.vision_tower._modules:
            return  # another model's call or the user's own, and not a backward pass that runs the tower again
        check_runs_pruned(self.strategy, module)
        if self.selecting is not None:
            self.selecting.check_kernel()
        arguments = named_arguments(module, args, kwargs)
        if self.before is None:
            assert self.between is not None
            row = self.between.describe(arguments)
            selections = [Selection.all(prod(grid), row.tokens.device) for grid in row.images]
        else:
            row = self.before.of_call(arguments, module.config)
            selections = self._selections(row, arguments[self.before.pixels])
        self._context.row = RowCall(row, selections, self.between)

    @dynamo_disabled
    def before_layer(self, number: int, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The arguments of an encoder layer, shortened; None if they may stay."""
        call = self._context.row
        if call is None:
            return None
        drops = call.drops
        if (drops or self.between is not None) and torch.is_grad_enabled() and recomputes_hooks(module):
            where = "before" if self.between is None else "inside"
            raise PruningError(
                f"{type(self.strategy).__name__} prunes {where} the vision tower, and activation checkpointing runs "
                f"encoder layers again in the backward pass. Switch it off, call eval() on the tower, or use a newer "
                f"transformers."
            )
        args, kwargs = hidden_states_first(args, kwargs)
        hidden, named = args[0], named_arguments(module, args, kwargs)
        if drops:
            hidden = call.advance(hidden)
            cut = call.entered[number] = call.cut
            named = cut.arguments(named)
            if cut.bias is not None and self.between is not None and self.between.attention.attend is not None:
                named[KEY_BIAS] = cut.bias.to(hidden.device)
        if self.selecting is not None and number in self.selecting.after:
            call.layer, call.rotation = number, named["position_embeddings"]
        return ((hidden,), named) if drops else None

    @dynamo_disabled
    def after_capture(self, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        call = self._context.row
        if call is None or call.layer is None or self.between is None:  # as in a backward pass that runs it again
            return
        call.captured[name] = output.detach()
        if len(call.captured) == self._n_points:
            captured, call.captured = call.captured, {}
            self._select(call, call.layer, self.between.project(call.layer, captured, call.rotation))
            call.layer = call.rotation = None

    @dynamo_disabled
    def after_output(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        call = self._context.row
        return None if call is None or not call.drops else call.cut.whole(output)

    @dynamo_disabled
    def after_tower(self, module: nn.Module, args: Any, output: Any) -> Any:
        call, self._context.row = self._context.row, None
        if call is None or not call.drops:
            return None
        if call.following is not None:
            raise PruningError(
                f"{type(self.adapter).__name__} names encoder layers that the vision tower does not call, so nothing "
                f"was pruned before it. Remove the patch, and report it with your transformers version."
            )
        for name in HIDDEN & output.keys():  # the others have come through an output module
            output[name] = self._whole(call, output[name])
        return output

    def _whole(self, call: RowCall, states: Any) -> Any:
        """The last hidden state, or those of all layers, with a row for every patch again."""
        if not isinstance(states, tuple):
            return call.cut.whole(states)
        made = enumerate(states[1:])
        entered = call.entered
        return (states[0], *(entered[layer].whole(one) if layer in entered else one for layer, one in made))

    def _select(self, call: RowCall, layer: int, projected: tuple[Tensor, Tensor, Tensor]) -> None:
        """Let the strategy select which visual tokens of each frame to keep after `layer`."""
        assert self.selecting is not None
        order = call.cut.by_token.to(projected[0].device)
        by_token = [part[order].transpose(0, 1) for part in projected]
        kept: list[Selection | None] = []
        start = 0
        for number, tile in enumerate(call.tiles):
            end = start + len(tile.left) * call.patches_per_token
            parts = [part[:, start:end] for part in by_token]
            kept.append(self.selecting.select(layer, number, tile, *parts) if end > start else None)
            start = end
        if any(map(changes, kept)):
            call.select(kept)

    def _selections(self, row: Row, patches: Tensor) -> list[Selection]:
        """What a PatchStrategy selects of every image."""
        assert isinstance(self.strategy, PatchStrategy)
        tokens = patch_tokens(row, self._colors(patches, len(row.tokens)).detach())
        return [selected_patches(self.strategy, one) for one in tokens]

    def _colors(self, patches: Tensor, n_patches: int) -> Float[Tensor, "patches 3 values"]:
        """The colours of all patches, 0 to 1."""
        mean, std = (
            torch.tensor(part, dtype=torch.float32, device=patches.device) for part in self.adapter.tower.normalisation
        )
        return (patches.reshape(n_patches, len(std), -1).float() * std[:, None]).add_(mean[:, None])
