"""The state of one call of the base model, from what came in to what its language model is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.engine.cache import Ledger, n_slots, set_ledger, span
from tokenprune.engine.stages.slots import StageSlots
from tokenprune.sequence.masks import Mask, MaskRequest, Slots, is_pattern, padding_of
from tokenprune.sequence.packing import Packing, identity_packing
from tokenprune.tokens.encoded import EncodedImage


@dataclass
class ForwardPass:
    """One call that has pictures or a pruned cache.

    visual: which of the new columns are visual tokens, by modality; empty without pictures.
    begins: at which of the new columns a picture begins, of modalities whose function is given tiles.
    images: the pictures, or tiles, of each of those modalities, as far as they are encoded.
    n_slots, n_columns: physical and logical length of the cache at the start.
    n_new: how many columns the call brings.
    columns_mask: its attention mask, over columns.
    packing, shift: which of the new columns are left, and how much lower position IDs go on behind them, None if they
        do not; set when any is dropped.
    """

    cache: Any
    ledger: Ledger | None
    visual: dict[str, Tensor]
    begins: dict[str, Tensor | None]
    images: dict[str, list[EncodedImage]]
    n_slots: int
    n_columns: int
    n_new: int
    columns_mask: Mask
    pruned: bool = False
    packing: Packing | None = None
    shift: Int[Tensor, " batch"] | None = None

    @cached_property
    def padding(self) -> Bool[Tensor, "rows columns"] | None:
        """Which of all columns are padding; None if none is."""
        return padding_of(self.columns_mask, self.n_columns, self.n_new)

    def real(self, batch: int, device: torch.device) -> Bool[Tensor, "batch new"]:
        """Which of the new columns are no padding."""
        if self.padding is None:
            return torch.ones(batch, self.n_new, dtype=torch.bool, device=device)
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

    def mask(self, adapter: ModelAdapter, kwargs: Mapping[str, Any]) -> Mask:
        """The attention mask over slots for a call of the language model. None if it may write a causal one itself."""
        mask, embeds = adapter.attention_mask(kwargs), kwargs["inputs_embeds"]
        patterned = is_pattern(mask) or adapter.decoder.layers.sliding
        if not patterned and self.packing is None and self.ledger is not None and not is_pattern(self.columns_mask):
            return self.ledger.over_slots(cast("Tensor | None", self.columns_mask), self.n_columns + self.n_new)
        if not patterned and self._only_grows:
            return None
        packing = self.packing or identity_packing(len(embeds), self.n_new, embeds.device)
        slots = self.past(len(embeds), embeds.device).appended(packing, self.n_columns)
        if not is_pattern(mask) and self.padding is not None:
            slots = slots.without(self.padding.to(embeds.device))
        if not patterned:
            return slots.valid
        adapter.decoder.check_masks()  # the attention may have been exchanged since
        spans = partial(span, self.cache, self.n_slots)
        call = MaskRequest(slots, packing, self.n_columns, spans, adapter.decoder.mask_dtype(embeds.dtype))
        return call.masks(mask, adapter.decoder.layers)

    def account(self, cache: Any, embeds: Tensor, held: tuple[StageSlots, ...], skipped: tuple[int, ...]) -> None:
        """Writes the ledger of a cache that this call filled, if anything was dropped or skipped. `held` is what each
        in-LLM stage holds then."""
        if self.packing is not None:
            new = self.packing, self.shift, held, skipped
            set_ledger(cache, Ledger.written(self.ledger, self.n_slots, *new))
        elif skipped and self.ledger is None:
            set_ledger(cache, Ledger.unpruned(len(embeds), n_slots(cache), embeds.device, skipped))

    @property
    def _only_grows(self) -> bool:
        """Whether all slots may be attended to, as far as can be told without asking a GPU."""
        # Without cache and mask, gaps in the position IDs would be read as borders of packed sequences.
        if self.cache is None or self.packing is None or self.packing.holes:
            return False
        return self.n_slots == 0 or (self.padding is None and not (self.ledger is not None and self.ledger.holes))
