"""The state of one call of the base model, from what came in to what its language model is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.ledger import Ledger, n_slots, set_ledger, span
from tokenprune.masks import Call, Mask, Slots, is_pattern
from tokenprune.sequence import Packing
from tokenprune.stage_slots import StageSlots
from tokenprune.vision import EncodedImage


@dataclass
class ForwardPass:
    """One call that has pictures or a pruned cache.

    visual: which of the new columns are visual tokens, by modality; empty without pictures.
    begins: at which of the new columns a picture begins, of modalities whose function is given tiles.
    images: the pictures, or tiles, of each of those modalities, as far as they are encoded.
    n_slots, n_columns: physical and logical length of the cache at the start.
    padding: which of all columns are padding; None if none is.
    packing, shift: which of the new columns are left, and how much lower position IDs go on behind them; set when
        any is dropped.
    """

    cache: Any
    ledger: Ledger | None
    visual: dict[str, Tensor]
    begins: dict[str, Tensor | None]
    images: dict[str, list[EncodedImage]]
    n_slots: int
    n_columns: int
    padding: Bool[Tensor, "rows columns"] | None
    pruned: bool = False
    packing: Packing | None = None
    shift: Int[Tensor, " batch"] | None = None

    def real(self, batch: int, n_new: int, device: torch.device) -> Bool[Tensor, "batch new"]:
        """Which of the new columns are no padding."""
        if self.padding is None:
            return torch.ones(batch, n_new, dtype=torch.bool, device=device)
        return ~self.padding[:, self.n_columns :].to(device).expand(batch, -1)

    def past(self, batch: int, device: torch.device) -> Slots:
        """What the cache holds at the start."""
        if self.ledger is None:
            return Slots.empty(batch, device).grown(self.n_slots, 0)
        return self.ledger.slots(self.n_slots)

    def past_valid(self, batch: int, device: torch.device) -> Bool[Tensor, "batch slots"]:
        """Which of the cache's slots may be attended to."""
        past = self.past(batch, device)
        return past.valid if self.padding is None else past.without(self.padding.to(device)).valid

    def mask(self, packing: Packing, adapter: ModelAdapter, kwargs: Mapping[str, Any]) -> Mask:
        """The attention mask over slots for a call of the language model in which `packing` is left of the new columns.
        None if it may write a causal one itself."""
        mask, embeds = adapter.attention_mask(kwargs), kwargs["inputs_embeds"]
        patterned = is_pattern(mask) or adapter.decoder.layers.sliding
        if not patterned and not self._needs_mask:
            return None
        slots = self.past(len(embeds), embeds.device).appended(packing, self.n_columns)
        if not is_pattern(mask) and self.padding is not None:
            slots = slots.without(self.padding.to(embeds.device))
        if not patterned:
            return slots.valid
        adapter.decoder.check_masks()  # the attention may have been exchanged since
        spans = partial(span, self.cache, self.n_slots)
        call = Call(slots, packing, self.n_columns, spans, adapter.decoder.mask_dtype(embeds.dtype))
        return call.masks(mask, adapter.decoder.layers)

    def account(self, cache: Any, embeds: Tensor, held: tuple[StageSlots, ...], skipped: tuple[int, ...]) -> None:
        """Writes the ledger of a cache that this call filled, if anything was dropped or skipped. `held` is what each
        in-LLM stage holds then."""
        if self.packing is not None and self.shift is not None:
            new = self.packing, self.shift, held, skipped
            set_ledger(cache, Ledger.written(self.ledger, self.n_slots, *new))
        elif skipped and self.ledger is None:
            set_ledger(cache, Ledger.unpruned(len(embeds), n_slots(cache), embeds.device, skipped))

    @property
    def _needs_mask(self) -> bool:
        """Whether not all slots may be attended to, or cannot be told to be. Asks no GPU when a cache only grows."""
        # Without cache and mask, gaps in the position IDs would be read as borders of packed sequences.
        if self.cache is None or self.padding is not None or (self.ledger is not None and self.ledger.holes):
            return True
        return self.packing is not None and not bool(self.packing.valid.all())
