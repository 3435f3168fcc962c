"""Drops patches before the encoder layers of a vision tower that takes the patches of all images in one row.

before_tower   the strategy selects, by their pixels, the visual tokens of each image whose patches are encoded
before_layer   hidden states, rotary embeddings and the ends of segments are cut to those patches, as the image has them
after_exit     what the layers made gets a row for every patch or visual token again, as the base model expects; those
               of dropped ones are zeros, which are dropped before the language model
after_tower    the same for the hidden states that the tower returns besides
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import recomputes_hooks
from tokenprune.adapters.towers.row import Row
from tokenprune.engine.call import CallContext, named_arguments
from tokenprune.engine.compiling import dynamo_disabled
from tokenprune.engine.recording import Register
from tokenprune.errors import PruningError, SettingError
from tokenprune.selection import Selection
from tokenprune.strategy import PatchStrategy, Strategy
from tokenprune.tokens.tower import PatchTokens

#: The outputs of a tower that may hold what its layers made, as it is.
HIDDEN = {"last_hidden_state", "hidden_states"}


class RowCall:
    """One call of the tower.

    row: the patches that it was given.
    selections: which visual tokens of each image are encoded.
    shortened: whether a layer was given fewer.
    """

    def __init__(self, row: Row, selections: list[Selection]) -> None:
        self.row, self.selections, self.shortened = row, selections, False
        device, self._n_patches = row.tokens.device, len(row.tokens)
        masks = [
            torch.zeros(one.n_visual, dtype=torch.bool, device=device).index_fill(0, one.kept.to(device), True)
            for one in selections
        ]
        self._kept = torch.cat(masks)
        in_layers = row.tokens if row.order is None else row.tokens[row.order]
        left = self._kept[in_layers]
        self._patches = left.nonzero()[:, 0]
        # Of use only where a token's patches are adjacent.
        self._tokens = self._kept[in_layers.unique_consecutive()].nonzero()[:, 0]
        self._ends = pad(left.cumsum(0), (1, 0))  # how many patches are left of the first so many
        self._cut: dict[int, tuple[Any, Any]] = {}  # by identity: all layers get the same arguments

    @property
    def drops(self) -> bool:
        return len(self._patches) < self._n_patches

    def cut(self, name: str, value: Any) -> Any:
        """The argument `name` of a layer, for the patches that are left."""
        if id(value) not in self._cut:
            self._cut[id(value)] = value, self._shortened(name, value)
        return self._cut[id(value)][1]

    def cut_hidden(self, hidden: Float[Tensor, "*one patches width"]) -> Float[Tensor, "*one left width"]:
        """The hidden states of the patches that are left; the same tensor if no others are in it."""
        if hidden.shape[-2] != self._n_patches:
            return hidden
        self.shortened = True
        return hidden.index_select(-2, self._patches.to(hidden.device))

    def whole(self, value: Any) -> Any:
        """What the layers made of the patches that are left, or mergers of their visual tokens, with zeros for the
        others. Anything else, also in tuples and lists, as it is."""
        if isinstance(value, (tuple, list)):
            return type(value)(map(self.whole, value))
        if not isinstance(value, Tensor) or value.ndim < 2:
            return value
        for places, n_all in ((self._patches, self._n_patches), (self._tokens, len(self._kept))):
            if value.shape[-2] == len(places):
                result = value.new_zeros(*value.shape[:-2], n_all, value.shape[-1])
                return result.index_copy(-2, places.to(value.device), value)
        return value

    def whole_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """What the recorder has seen of a layer's attention, the same way."""
        attention = {name: self.whole(value) for name, value in call.get("attention", {}).items()}
        seen = {name: self.whole(self._in_rows(value)) for name, value in call.items() if isinstance(value, Tensor)}
        return {**call, **seen, "attention": attention}

    def _in_rows(self, value: Tensor) -> Tensor:
        """Queries or keys of shape (patches, heads, width) as one row for each patch; anything else as it is."""
        return value.flatten(1) if value.ndim == 3 and len(value) == len(self._patches) > 1 else value

    def real(self) -> list[Bool[Tensor, " patches"]]:
        """Which patches of each tile, in raster order, were encoded."""
        return list(self._kept[self.row.in_tiles].split(self.row.tiles))

    def _shortened(self, name: str, value: Any) -> Any:
        if name == "cu_seqlens":
            return self._ends.to(value.device)[value.long()].unique_consecutive().to(value.dtype)
        if isinstance(value, tuple):
            return tuple(self._shortened(name, part) for part in value)
        if isinstance(value, Tensor) and value.ndim >= 2 and value.shape[-2] == self._n_patches:
            return value.index_select(-2, self._patches.to(value.device))
        return value


class PatchPruning:
    """Lets a PatchStrategy select before the tower's layers, and shortens what they get.

    Raises SettingError for a strategy of another kind.
    """

    def __init__(self, strategy: Strategy, adapter: ModelAdapter, context: CallContext) -> None:
        assert adapter.tower.row is not None  # `patch` has checked that the model offers "left_before_tower"
        if not isinstance(strategy, PatchStrategy):
            raise SettingError(
                f"{type(strategy).__name__}.needs has left_before_tower, which only a PatchStrategy can have. Derive "
                f"it from tokenprune.strategy.PatchStrategy."
            )
        self.strategy, self.adapter, self.row = strategy, adapter, adapter.tower.row
        self._context = context

    def register(self, register: Register) -> None:
        """Register the hooks. The recorder's hooks on the tower come before: they read what was dropped."""
        for tower in self.adapter.vision_towers:
            register(tower.register_forward_pre_hook(self.before_tower, with_kwargs=True))
            register(tower.register_forward_hook(self.after_tower))
            for layer in self.adapter.tower.layers(tower):
                register(layer.register_forward_pre_hook(self.before_layer, with_kwargs=True))
            for module in self.row.exits(tower):
                register(module.register_forward_hook(self.after_exit))

    @dynamo_disabled
    def before_tower(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        arguments = named_arguments(module, args, kwargs)
        row = self.row.describe(arguments["grid_thw"], module.config)
        pixels = self._colors(arguments[self.row.pixels], len(row.tokens)).detach()
        if bool((row.tokens[1:] < row.tokens[:-1]).any()):
            pixels = pixels[row.tokens.argsort(stable=True)]
        ends = torch.tensor([prod(grid) for grid in row.images], device=row.tokens.device).cumsum(0)
        sizes = torch.searchsorted(row.tokens.sort().values, ends).diff(prepend=ends.new_zeros(1)).tolist()
        parts = zip(pixels.split(sizes), row.images, strict=True)
        selections = [self._selected(part.reshape(prod(grid), -1), grid) for part, grid in parts]
        self._context.row = RowCall(row, selections)

    @dynamo_disabled
    def before_layer(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The arguments of an encoder layer, shortened; None if they may stay."""
        call = self._context.row
        if call is None or not call.drops:
            return None
        if torch.is_grad_enabled() and recomputes_hooks(module):
            raise PruningError(
                f"{type(self.strategy).__name__} prunes before the vision tower, and activation checkpointing runs "
                f"encoder layers again in the backward pass. Switch it off, call eval() on the tower, or use a newer "
                f"transformers."
            )
        hidden, *_ = args
        named = named_arguments(module, args, kwargs)
        others = {name: call.cut(name, value) for name, value in named.items() if name != "hidden_states"}
        if named.get("max_seqlen") is not None:
            ends = others["cu_seqlens"]
            others["max_seqlen"] = type(named["max_seqlen"])((ends[1:] - ends[:-1]).max())
        return (call.cut_hidden(hidden),), others

    @dynamo_disabled
    def after_exit(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        call = self._context.row
        return None if call is None or not call.drops else call.whole(output)

    @dynamo_disabled
    def after_tower(self, module: nn.Module, args: Any, output: Any) -> Any:
        call, self._context.row = self._context.row, None
        if call is None or not call.drops:
            return None
        if not call.shortened:
            raise PruningError(
                f"{type(self.adapter).__name__} names encoder layers that the vision tower does not call, so nothing "
                f"was pruned before it. Remove the patch, and report it with your transformers version."
            )
        for name in HIDDEN & output.keys():  # the others have come through an exit
            output[name] = call.whole(output[name])
        return output

    def _colors(self, patches: Tensor, n_patches: int) -> Float[Tensor, "patches 3 values"]:
        """The colours of all patches, 0 to 1."""
        mean, std = (torch.tensor(part, device=patches.device) for part in self.adapter.tower.normalisation)
        return patches.reshape(n_patches, len(std), -1).float() * std[:, None] + mean[:, None]

    def _selected(self, pixels: Float[Tensor, "visual values"], grid: tuple[int, int, int]) -> Selection:
        selection = self.strategy.select_patches(PatchTokens(pixels, grid))
        if not isinstance(selection, Selection) or selection.n_visual != prod(grid):
            raise PruningError(
                f"{type(self.strategy).__name__}.select_patches must return a Selection over {prod(grid)} visual "
                f"tokens."
            )
        return selection
