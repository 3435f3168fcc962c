"""Drops patches before or between the encoder layers of a vision tower that takes the patches of all images in one row.

Hidden states, rotary embeddings and segment ends are cut to what is left, in the layers' own order. The layers' output
gets a row for every patch or visual token again, as the base model expects; the rows of dropped ones are zeros, which
are dropped before the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import bind_arguments, hidden_states_first, named_arguments, recomputes_hooks
from tokenprune.adapters.towers.attention import Projected
from tokenprune.adapters.towers.layers import RowLayers
from tokenprune.adapters.towers.row import Row
from tokenprune.engine.call import CallContext
from tokenprune.engine.patch import ForwardOverride, Register, dynamo_disabled
from tokenprune.engine.tower.patches import in_order, patch_tokens, selected_patches
from tokenprune.engine.tower.pruning import TowerPruning
from tokenprune.engine.tower.row import RowCall
from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Selection
from tokenprune.strategy import PatchStrategy, Strategy

#: The outputs of a tower that may be the output of its layers, unchanged.
HIDDEN = {"last_hidden_state", "hidden_states"}

#: The argument of a layer that holds the bias of each patch's key. Layers pass arguments that they do not know on to
#: their attention, even when activation checkpointing runs them again.
KEY_BIAS = "key_bias"


class RowPruning(TowerPruning[RowCall, RowLayers]):
    """Prunes before and between the layers of a tower that takes all patches in one row.

    before: how the tower takes its row, if a PatchStrategy selects before the layers; None if none does.

    Raises SettingError for any other strategy that needs `kept_before_tower`.
    """

    def __init__(
        self, strategy: Strategy, adapter: ModelAdapter, between: RowLayers | None, context: CallContext
    ) -> None:
        self.before = adapter.tower.row if "kept_before_tower" in strategy.needs else None
        if self.before is not None and not isinstance(strategy, PatchStrategy):
            raise SettingError(
                f"{type(strategy).__name__}.needs has kept_before_tower, which only a PatchStrategy can have. Derive "
                f"it from tokenprune.strategy.PatchStrategy."
            )
        super().__init__(strategy, adapter, between, context)

    def register_layers(self, register: Register) -> None:
        for tower in self.adapter.vision_towers:
            for number, layer in enumerate(self.adapter.tower.layers(tower)):
                register(layer.register_forward_pre_hook(partial(self.before_layer, number), with_kwargs=True))
            for module in () if self.adapter.tower.row is None else self.adapter.tower.row.output_modules(tower):
                register(module.register_forward_hook(self.after_output))
        if self.between is not None and (attend := self.between.attention.attend) is not None:
            for layer in self.between.layers:
                register(ProportionalAttention(self.between.attention.points(layer).attention, attend).install())

    def begin(self, tower: nn.Module, arguments: Mapping[str, Any]) -> RowCall:
        if self.before is not None:
            row = self.before.of_call(arguments, tower.config)
            return RowCall(row, self._selections(row, arguments[self.before.pixels]), self.between)
        assert self.between is not None
        row = self.between.describe(arguments)
        return RowCall(row, [Selection.all(prod(grid), row.tokens.device) for grid in row.images], self.between)

    def project(self, call: RowCall, layer: int) -> Projected:
        assert self.between is not None
        rotation, call.rotation = call.rotation, None
        return self.between.project(layer, call.captured, rotation)

    @dynamo_disabled
    def before_layer(self, number: int, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The arguments of an encoder layer, shortened; None if they need no change."""
        call = self.call
        if call is None:
            return None
        drops = call.drops
        if (drops or self.between is not None) and torch.is_grad_enabled() and recomputes_hooks(module):
            raise self.runs_again("call eval() on the tower", "use a newer transformers")
        args, kwargs = hidden_states_first(args, kwargs)
        hidden, named = args[0], named_arguments(module, args, kwargs)
        if drops:
            hidden = call.advance(hidden)
            cut = call.entered[number] = call.cut
            named = cut.arguments(named)
            if cut.bias is not None and self.between is not None and self.between.attention.attend is not None:
                named[KEY_BIAS] = cut.bias.to(hidden.device)
        if number in self.after:
            call.layer, call.rotation = number, named["position_embeddings"]
        return ((hidden,), named) if drops else None

    @dynamo_disabled
    def after_output(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        call = self.call
        return None if call is None or not call.drops else call.cut.whole(output)

    @dynamo_disabled
    def after_tower(self, module: nn.Module, args: Any, output: Any) -> Any:
        call = self.end()
        if call is None or not call.drops:
            return None
        if call.following is not None:
            raise PruningError(
                f"{type(self.adapter).__name__} names encoder layers that the vision tower does not call, so nothing "
                f"was pruned before it. Remove the patch, and report it with your transformers version."
            )
        for name in HIDDEN & output.keys():  # the others come through an output module
            if not (call.row.n_prefix and name == "last_hidden_state"):  # as this does if it lacks the prefix tokens
                output[name] = self._whole(call, output[name])
        return output

    def _whole(self, call: RowCall, states: Any) -> Any:
        """The last hidden state, or those of all layers, with a row for every patch again."""
        if not isinstance(states, tuple):
            return call.cut.whole(states)
        made = enumerate(states[1:])
        entered = call.entered
        return (states[0], *(entered[layer].whole(state) if layer in entered else state for layer, state in made))

    def _selections(self, row: Row, patches: Tensor) -> list[Selection]:
        """What a PatchStrategy selects from every image."""
        assert isinstance(self.strategy, PatchStrategy)
        tokens = patch_tokens(row, self._colors(patches, len(row.tokens)).detach())
        return in_order(row, [selected_patches(self.strategy, image) for image in tokens])

    def _colors(self, patches: Tensor, n_patches: int) -> Float[Tensor, "patches 3 values"]:
        """The colours of all patches, 0 to 1."""
        mean, std = (
            torch.tensor(part, dtype=torch.float32, device=patches.device) for part in self.adapter.tower.normalisation
        )
        return (patches.reshape(n_patches, len(std), -1).float() * std[:, None]).add_(mean[:, None])


class ProportionalAttention(ForwardOverride):
    """The forward of an attention module that takes no mask. With `KEY_BIAS`, the adapter's `attend` runs, which adds
    the log of how many patches each stands for to its logits."""

    def __init__(self, attention: nn.Module, attend: Callable[..., Any]) -> None:
        super().__init__(attention)
        self._attend = attend

    def override(self, *args: Any, **kwargs: Any) -> Any:
        bias: Tensor | None = kwargs.pop(KEY_BIAS, None)
        if bias is None:
            return self.original(*args, **kwargs)
        named = bind_arguments(self.original, args, kwargs)
        parts = (named[name] for name in ("hidden_states", "cu_seqlens", "position_embeddings"))
        return self._attend(self._module, *parts, bias)
