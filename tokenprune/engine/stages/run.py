"""One in-LLM stage in one forward: a layer's arguments, cut to the stage's tokens.

Every layer is called with masks and rotary embeddings made for the sequence that entered the language model. A staged
layer has them cut to its own tokens here, in prefill, and its mask cut to its own cache slots in every later call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tokenprune.engine.cache import span
from tokenprune.engine.stages.slots import StageSlots
from tokenprune.errors import PruningError
from tokenprune.sequence.packing import Packing


@dataclass(eq=False)
class StageRun:
    """One stage's layers during one forward: what they hold of a cache with `n_slots` in its first layer, and which
    tokens of this forward they get."""

    past: StageSlots
    packing: Packing
    cache: Any
    n_slots: int
    _cut: tuple[Any, Any, dict[str, Any]] | None = None

    @property
    def drops(self) -> bool:
        return self.packing.drops

    @property
    def whole(self) -> bool:
        """Whether there is no hole in what the stage's layers hold after the forward."""
        return self.past.whole and not self.packing.holes

    @cached_property
    def held(self) -> StageSlots:
        """What the stage's layers hold after the forward."""
        return self.past.followed_by(self.n_slots + self.packing.columns, self.packing.valid, self.packing.holes)

    def cut(self, kwargs: dict[str, Any], like: Tensor, layer: int) -> dict[str, Any]:
        """A layer's arguments, cut to the stage. All its layers are called with the same objects: cut once."""
        mask, rotary = kwargs.get("attention_mask"), kwargs.get("position_embeddings")
        if mask is None and self.whole and not self.drops:
            return kwargs
        if self._cut is None or self._cut[0] is not mask or self._cut[1] is not rotary:
            new: dict[str, Any] = {"attention_mask": self._mask(mask, like, layer)}
            if self.drops and rotary is not None:
                new["position_embeddings"] = tuple(self._take(part) for part in rotary)
            if self.drops and isinstance(kwargs.get("position_ids"), Tensor):
                new["position_ids"] = self.packing.gather_ids(kwargs["position_ids"])
            self._cut = (mask, rotary, new)
        return {**kwargs, **self._cut[2]}

    def _take(self, tensor: Tensor) -> Tensor:
        """The stage's tokens of a (..., batch or 1, length, width) tensor."""
        return (
            self.packing.gather_tokens(tensor)
            if tensor.ndim == 3
            else torch.stack([self._take(part) for part in tensor])
        )

    def _mask(self, mask: Any, like: Tensor, layer: int) -> Tensor | None:
        """The stage's attention mask, from the one for the sequence that entered: over queries and keys for a 4-D
        mask, over keys for a 2-D one. None stays None where every query may see all that came before it.

        Raises PruningError for any other kind of mask.
        """
        if mask is None:
            return None if self.whole else self._causal(like)
        held = self.held
        if not isinstance(mask, Tensor) or mask.ndim not in (2, 4):
            raise PruningError(
                f"an attention mask of type {type(mask).__name__} cannot be cut for in-LLM pruning. Load the model "
                f'with attn_implementation="sdpa".'
            )
        keys = mask.expand(len(held.slots), *mask.shape[1:])
        if mask.ndim == 2:
            return keys.gather(1, held.slots) * held.valid
        queries = self.packing.columns[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[-1])
        rows = keys.gather(2, queries) if self.drops else keys
        index = held.slots[:, None, None].expand(-1, rows.shape[1], rows.shape[2], -1)
        cut = _masked(rows.gather(3, index), ~held.valid[:, None, None])
        n_keys, _ = span(self.cache, self.past.slots.shape[1], layer, self.packing.columns.shape[1])
        free = cut.new_zeros(*cut.shape[:-1], n_keys - cut.shape[-1])  # a static cache answers with all its room
        return torch.cat([cut, _masked(free, torch.ones_like(free).bool())], -1) if free.shape[-1] else cut

    def _causal(self, like: Tensor) -> Tensor:
        """Nothing was masked, but the stage has holes: an additive mask over its own tokens."""
        held, new = self.held, (self.n_slots + self.packing.columns)[:, :, None]
        itself = held.slots[:, None] == new  # holes see themselves: nothing reads them, and softmax needs one entry
        seen = (held.slots[:, None] <= new) & held.valid[:, None] | itself & ~self.packing.valid[:, :, None]
        return _masked(like.new_zeros(seen.shape), ~seen)[:, None]


def places_of(packing: Packing) -> Int[Tensor, "batch columns"]:
    """Where each column that a packing holds stands in it; 0 for those that it does not."""
    columns, valid = packing.columns, packing.valid
    place = torch.zeros(len(columns), packing.n_columns, dtype=torch.long, device=columns.device)
    order = torch.arange(columns.shape[1], device=columns.device).expand_as(columns)
    # Holes stand at column 0, which may be a real token's too: that one is to win.
    return place.scatter_reduce_(1, columns, order * valid, "amax")


def _masked(mask: Tensor, where: Tensor) -> Tensor:
    return mask & ~where if mask.dtype == torch.bool else mask.masked_fill(where, torch.finfo(mask.dtype).min)
