"""One in-LLM stage in one forward: the arguments of its layers, gathered for its tokens.

Every layer is called with masks and rotary embeddings made for the sequence that entered the language model. In
prefill, those of a staged layer are gathered here for its own tokens; in every later call, its mask is gathered for its
own cache slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.engine.cache.pruned import is_static, physical_view, span
from tokenprune.engine.cache.stage_slots import StageSlots
from tokenprune.errors import PruningError
from tokenprune.sequence.finished_masks import add_bias, additive, masked_out
from tokenprune.sequence.packing import Packing


@dataclass(eq=False)
class StageRun:
    """The layers of one stage during one forward.

    past: the slots that the layers hold before the forward.
    packing: the tokens of this forward that the layers get.
    cache: the KV cache, if there is one.
    n_slots: how many slots the cache's first layer holds before the forward.
    bias: what the stage adds to the attention logits of these tokens' keys; None if nothing.
    flash: whether the layers run FlashAttention, which takes masks over keys only.
    """

    past: StageSlots
    packing: Packing
    cache: Any
    n_slots: int
    bias: Float[Tensor, "batch left"] | None = None
    flash: bool = False
    _gathered: tuple[Any, Any, dict[str, Any]] | None = None

    @property
    def drops(self) -> bool:
        return self.packing.drops

    @property
    def has_no_holes(self) -> bool:
        """Whether what the stage's layers hold after the forward has no holes."""
        return self.past.has_no_holes and not self.packing.holes

    @property
    def needs_mask(self) -> bool:
        """Whether the layers need a mask even if they are called without one: for holes, and in FlashAttention for the
        free room of a static cache."""
        return not self.has_no_holes or (self.flash and is_static(self.cache))

    @cached_property
    def slots(self) -> StageSlots:
        """The slots that the stage's layers hold after the forward."""
        packing = self.packing
        return self.past.followed_by(self.n_slots + packing.columns, packing.valid, packing.holes, self.bias)

    def gather_arguments(self, kwargs: dict[str, Any], hidden: Tensor, layer: int) -> dict[str, Any]:
        """A layer's arguments for the stage's tokens. All layers of the stage get the same masks, position IDs and
        rotary embeddings, so these are gathered once."""
        mask, rotary = kwargs.get("attention_mask"), kwargs.get("position_embeddings")
        if mask is None and not self.needs_mask and not self.drops:
            return kwargs
        if self._gathered is None or self._gathered[0] is not mask or self._gathered[1] is not rotary:
            same: dict[str, Any] = {"attention_mask": self._mask(mask, hidden, layer)}
            if self.drops and rotary is not None:
                same["position_embeddings"] = tuple(self._take(part) for part in rotary)
            if self.drops and isinstance(kwargs.get("position_ids"), Tensor):
                same["position_ids"] = self.packing.gather_ids(kwargs["position_ids"])
            self._gathered = (mask, rotary, same)
        new = {**kwargs, **self._gathered[2]}
        if self.drops:  # anything else that runs along the sequence, and may differ from layer to layer
            others = (
                name for name in kwargs.keys() - self._gathered[2].keys() if self.packing.runs_along(kwargs[name])
            )
            new |= {name: self.packing.gather_tokens(kwargs[name]) for name in others}
        return new

    def gather_hidden(self, hidden: Tensor, before: StageRun | None) -> Tensor:
        """The hidden states of the stage's tokens, from those of the stage before it (None: of all that entered)."""
        if before is None or not before.drops:
            return self.packing.gather_tokens(hidden)
        index = before.packing.places().gather(1, self.packing.columns)
        return replace(self.packing, columns=index, n_columns=hidden.shape[1]).gather_tokens(hidden)

    def _take(self, tensor: Tensor) -> Tensor:
        """The stage's tokens of a (..., batch or 1, length, width) tensor."""
        if tensor.ndim == 3:
            return self.packing.gather_tokens(tensor)
        return torch.stack([self._take(part) for part in tensor])

    def _mask(self, mask: Any, hidden: Tensor, layer: int) -> Tensor | None:
        """The stage's attention mask, from the one for the sequence that entered: over queries and keys for a 4-D
        mask, over keys for a 2-D one. None stays None where every query may see all that came before it.

        Raises PruningError for any other kind of mask.
        """
        if mask is None and not self.needs_mask:
            return None
        if mask is None:
            return self.slots.valid if self.flash else self._with_free_room(self._causal(hidden), layer)
        if not isinstance(mask, Tensor) or mask.ndim not in (2, 4):
            raise PruningError(
                f"an attention mask of type {type(mask).__name__} cannot be pruned between layers. Load the model "
                f'with attn_implementation="sdpa".'
            )
        held = self.slots.to(mask.device)
        keys = mask.expand(len(held.slots), *mask.shape[1:])
        if mask.ndim == 2:
            return keys.gather(1, held.slots) * held.valid
        queries = self.packing.columns.to(mask.device)[:, None, :, None]
        rows = keys.gather(2, queries.expand(-1, mask.shape[1], -1, mask.shape[-1])) if self.drops else keys
        index = held.slots[:, None, None].expand(-1, rows.shape[1], rows.shape[2], -1)
        kept = masked_out(rows.gather(3, index), ~held.valid[:, None, None])
        kept = kept if held.bias is None else add_bias(kept, held.bias, hidden.dtype)
        return self._with_free_room(kept, layer)

    def _with_free_room(self, mask: Tensor, layer: int) -> Tensor:
        """Extend a mask to all keys that the cache returns: a static cache also returns its free room."""
        n_keys, _ = span(physical_view(self.cache), self.past.slots.shape[1], layer, self.packing.columns.shape[1])
        free = mask.new_zeros(*mask.shape[:-1], max(0, n_keys - mask.shape[-1]))  # a layer ahead may hold fewer
        return torch.cat([mask, masked_out(free, torch.ones_like(free).bool())], -1) if free.shape[-1] else mask

    def _causal(self, hidden: Tensor) -> Tensor:
        """An additive mask over the stage's own tokens, for a stage with holes that was called without a mask."""
        held, new = self.slots, (self.n_slots + self.packing.columns)[:, :, None]
        # Holes attend to themselves: nothing reads them, and softmax needs one entry.
        itself = held.slots[:, None] == new
        seen = (held.slots[:, None] <= new) & held.valid[:, None] | itself & ~self.packing.valid[:, :, None]
        return additive(seen.to(hidden.device), hidden.dtype)[:, None]


def text_places(packings: Sequence[Packing], row: int, columns: Int[Tensor, " text"]) -> Int[Tensor, " text"]:
    """The places of an image's text columns after successive packings. Where the prompt ends with its image, the column
    that stands for its text may be gone; the last one left in the row then takes its place."""
    for packing in packings:
        places, valid = packing.places()[row, columns], packing.valid[row]
        last = (torch.arange(len(valid), device=valid.device) * valid).amax()
        columns = torch.where(packing.columns[row, places] == columns, places, last)
    return columns
