"""Drops patches between the encoder layers of a vision tower that takes a batch of tiles.

After each layer that a strategy names in `tower_layers`, it selects tile by tile which visual tokens are left, and the
next layers get only their patches. If tiles of a batch end up with unequal numbers, the shorter ones are padded, and a
mask keeps the padding out of the attention. A merged patch is attended to like the patches that it stands for: the
logarithm of their number is added to its logit. After the tower, the remaining patches are put back in their places
in the grid, so that the model finds the shapes that it expects; the other places hold zeros, which are dropped before
the language model. A projector that maps every patch by itself is not given these places; its output has them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import CHECKPOINTED, named_arguments, recomputes, recomputes_hooks
from tokenprune.adapters.towers.attention import Projected
from tokenprune.adapters.towers.layers import BatchLayers, restore_patches
from tokenprune.engine.call import CallContext
from tokenprune.engine.patch import Register, dynamo_disabled
from tokenprune.engine.tower.batch import BatchCall, BatchCut
from tokenprune.engine.tower.pruning import TowerPruning
from tokenprune.strategy import Strategy


class BatchPruning(TowerPruning[BatchCall, BatchLayers]):
    """Prunes between the layers of a tower that takes a batch of tiles."""

    def __init__(self, strategy: Strategy, adapter: ModelAdapter, layers: BatchLayers, context: CallContext) -> None:
        super().__init__(strategy, adapter, layers, context)
        self._layers = layers

    def register_layers(self, register: Register) -> None:
        for number, layer in enumerate(self._layers.layers):
            if number > self.after[0]:
                masked = self._layers.masked(number)  # asked once: a wrapper put around the layer later takes anything
                before = partial(self.before_layer, number, masked is not layer)
                register(layer.register_forward_pre_hook(before, with_kwargs=True))
                if masked is not layer:
                    register(masked.register_forward_pre_hook(self.before_attention, with_kwargs=True))
        if self._layers.projector is not None:
            projector = self._layers.projector()
            register(projector.register_forward_pre_hook(self.before_projector))
            register(projector.register_forward_hook(self.after_projector))

    def begin(self, tower: nn.Module, arguments: Mapping[str, Any]) -> BatchCall:
        of_tokens = None if self._layers.patches is None else self._layers.patches(arguments)
        call = BatchCall(of_tokens, self.adapter.tower.n_prefix, self._layers.whole_images)
        call.layer = self.after[0]  # up to which no layer has a hook
        return call

    def project(self, call: BatchCall, layer: int) -> Projected:
        return self._layers.split_heads(call.captured)

    @dynamo_disabled
    def before_layer(self, number: int, within: bool, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The arguments of an encoder layer, shortened; None if they need no change.

        within: whether the layer's attention takes the mask, rather than the layer.
        """
        call = self.call
        if call is None:
            return None
        layer = self._layers.layers[number]  # or what was put around the module since
        if torch.is_grad_enabled() and (recomputes(layer) if within else recomputes_hooks(layer, module)):
            wrapped = CHECKPOINTED in layer._modules
            ways = [] if wrapped else ["call eval() on the tower"]
            if not within:
                ways.append("call patch() again" if wrapped else "use a newer transformers")
            raise self.runs_again(*ways)
        hidden, *rest = args
        hidden = call.advance(hidden)
        call.layer = number if number in self.after else None
        if call.cut is None:
            return None
        call.entered[number] = call.cut
        call.mask = call.cut.mask(hidden)
        named = named_arguments(module, (hidden, *rest), kwargs)
        return self._layers.arguments(named, hidden, None if within else call.mask)

    @dynamo_disabled
    def before_attention(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The arguments of a layer's attention, if the layer itself takes no mask; None if they need no change."""
        call = self.call
        return None if call is None or call.mask is None else (args, {**kwargs, "attention_mask": call.mask})

    @dynamo_disabled
    def after_tower(self, module: nn.Module, args: Any, output: Any) -> Any:
        call = self.end()
        if (encoding := self._context.encodings.now) is not None:
            cut = None if call is None else call.cut
            encoding.cut = None if cut is None or cut.patches.shape[1] == cut.n_all else cut
        if call is None or not call.entered:
            return None

        def whole(layer: int, hidden: Tensor) -> Tensor:
            return call.entered[layer].whole(hidden) if layer in call.entered else hidden

        return restore_patches(output, len(self._layers.layers), whole)

    @dynamo_disabled
    def before_projector(self, module: nn.Module, args: Any) -> Any:
        """The arguments of the projector without the rows of dropped patches; None if they need no change."""
        cut = self._projected
        if cut is None or not args or args[0].shape[:2] != (len(cut.patches), cut.n_all):
            return None
        assert self._layers.projector is not None
        if torch.is_grad_enabled() and recomputes_hooks(self._layers.projector(), module):
            return None  # run again in the backward pass, it would be given all rows
        return cut.without(args[0]), *args[1:]

    @dynamo_disabled
    def after_projector(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """The projector's output with a row for every patch again; None if it needs no change."""
        cut = self._projected
        return cut.whole(output) if cut is not None and args and args[0].shape[:2] == cut.patches.shape else None

    @property
    def _projected(self) -> BatchCut | None:
        """What is left of the tiles that the model projects now; None if that is everything."""
        encoding = self._context.encodings.now
        return None if encoding is None else encoding.cut
