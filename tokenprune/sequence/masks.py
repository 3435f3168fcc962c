"""Attention masks after pruning: the one place that makes them.

Input masks cover columns, as in the unpruned model: until the language model is entered, a pruned cache reports its
logical lengths, so the masks that transformers makes before (causal, prefix, image blocks, windows) are right for the
unpruned sequence. This module turns them into masks over slots by gathering the remaining rows and columns. A sliding
window counts columns; where the language model would make the mask itself and count slots, it is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from tokenprune.sequence.packing import Mask, Packing, Slots, is_pattern, wrong_width

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class LayerKinds:
    """How the decoder layers attend.

    kinds: FULL or SLIDING, for each layer.
    window: the number of columns that a query of a SLIDING layer attends to, itself included.
    by_kind: whether the language model takes finished masks as a dict by kind.
    """

    kinds: tuple[str, ...]
    window: int | None
    by_kind: bool

    @cached_property
    def sliding(self) -> bool:
        return SLIDING in self.kinds


@dataclass(frozen=True, eq=False)
class MaskRequest:
    """The masks that one call of the language model needs.

    slots: those of the cache, followed by those of the remaining new tokens.
    packing: the remaining new columns; the new columns start at `n_columns`.
    span: (layer index, number of queries) -> number of slots in the layer's keys, and the first of them.
    dtype: bool, or the dtype of additive masks.
    """

    slots: Slots
    packing: Packing
    n_columns: int
    span: Callable[[int, int], tuple[int, int]]
    dtype: torch.dtype

    def masks(self, mask: Mask, layers: LayerKinds) -> Mask:
        """Make the language model's finished masks from patterns over columns; without patterns, causal masks and
        windows. Padding is then already in `slots`."""
        masks = {kind: self._mask(mask, kind, layers) for kind in set(layers.kinds)}
        return masks if layers.by_kind else masks[layers.kinds[0]]

    def _mask(self, mask: Mask, kind: str, layers: LayerKinds) -> Shaped[Tensor, "batch heads queries keys"]:
        keys = self.slots.span(*self.span(layers.kinds.index(kind), self.packing.columns.shape[1]))
        pattern = mask[kind] if isinstance(mask, Mapping) else mask if is_pattern(mask) else None
        if pattern is not None:
            total = self.n_columns + self.packing.n_columns
            if kind == FULL and pattern.shape[-1] < total:
                raise wrong_width(pattern, total)
            return gather_pattern(pattern, self.packing, keys, self.n_columns)
        window = layers.window if kind == SLIDING else None
        return causal_mask(self.n_columns + self.packing.columns, keys, window, self.dtype)


def causal_mask(
    queries: Int[Tensor, "batch queries"], keys: Slots, window: int | None, dtype: torch.dtype
) -> Shaped[Tensor, "batch one queries keys"]:
    """Make a causal mask; a query does not attend to keys that are `window` or more columns before it."""
    age = queries[:, :, None] - keys.columns[:, None]
    allowed = (age >= 0) & keys.valid[:, None]
    if window is not None:
        allowed &= age < window
    if dtype != torch.bool:
        allowed = torch.zeros_like(age, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
    return allowed[:, None]


def gather_pattern(
    pattern: Shaped[Tensor, "rows heads new columns"], packing: Packing, keys: Slots, n_columns: int
) -> Shaped[Tensor, "batch heads queries keys"]:
    """Gather the remaining rows and columns of a pattern.

    The pattern covers the last columns up to the new ones, and possibly the unused room of a static cache after them.
    """
    width = pattern.shape[-1]
    place = keys.columns - max(n_columns + packing.n_columns - width, 0)
    (batch, n_queries), n_heads = packing.columns.shape, pattern.shape[1]
    rows = packing.columns[:, None, :, None].expand(-1, n_heads, -1, width)
    columns = place.clamp(min=0)[:, None, None].expand(-1, n_heads, n_queries, -1)
    left = pattern.expand(batch, -1, -1, -1).gather(2, rows).gather(3, columns)
    closed = False if left.dtype == torch.bool else torch.finfo(left.dtype).min
    return left.masked_fill(~(keys.valid & (place >= 0))[:, None, None], closed)
