"""Makes attention masks of the language model after pruning, for layers or calls that need finished ones.

Input masks cover columns, as in the unpruned model: until the language model is entered, a pruned cache reports its
logical length, so the masks that transformers has made by then (causal, prefix, image blocks, windows) are right for
the unpruned sequence. This module turns them into masks over slots by gathering the remaining rows and columns. Sliding
windows and chunks count columns; where the language model would make the mask itself and count slots, it is made here.
Layers with a recurrent state take no such mask: they get the padding of the new tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from tokenprune.sequence.masks import (
    CHUNKED,
    FULL,
    INDEXED,
    POOLED,
    RECURRENT,
    REFERENCE,
    SEPARATE,
    SLIDING,
    LayerKinds,
    Mask,
    is_pattern,
    wrong_width,
)
from tokenprune.sequence.packing import Packing, Slots


@dataclass(frozen=True, eq=False)
class MaskRequest:
    """The masks that one call of the language model needs.

    slots: the slots of the cache, followed by those of the remaining new tokens.
    packing: the remaining new columns; the new columns start at `n_columns`.
    span: (layer index, number of queries) -> number of slots in the layer's keys, and the first of them.
    dtype: bool, or the dtype of additive masks.
    first: the first column of each row that is not padding; None if no row is padded on the left.
    prompt: how many slots REFERENCE layers always see; None while they see all.
    """

    slots: Slots
    packing: Packing
    n_columns: int
    span: Callable[[int, int], tuple[int, int]]
    dtype: torch.dtype
    first: Int[Tensor, " batch"] | None
    prompt: int | None = None

    def masks(self, mask: Mask, layers: LayerKinds) -> Mask:
        """Make the language model's finished masks from patterns over columns; without patterns, causal masks and
        windows. Padding is then already in `slots`."""
        masks = {INDEXED if kind == POOLED else kind: self._mask(mask, kind, layers) for kind in set(layers.kinds)}
        return masks if layers.by_kind else masks[layers.kinds[0]]

    def _mask(self, mask: Mask, kind: str, layers: LayerKinds) -> Tensor | None:
        if kind == SEPARATE:
            return None
        if kind == POOLED:
            return self._real()
        if kind in RECURRENT:
            return self._padding()
        keys = self._keys(kind, layers)
        allowed = self._allowed(mask, kind, layers, keys)
        return allowed if keys.bias is None else add_bias(allowed, keys.bias, self.dtype)

    def _allowed(self, mask: Mask, kind: str, layers: LayerKinds, keys: Slots) -> Tensor:
        """The mask of the layers of a kind, from a pattern or made here, without bias."""
        pattern = mask[kind] if isinstance(mask, Mapping) else mask if is_pattern(mask) else None
        if pattern is not None:
            total = self.n_columns + self.packing.n_columns
            if kind == FULL and pattern.shape[-1] < total:
                raise wrong_width(pattern, total)
            return gather_pattern(pattern, self.packing, keys, self.n_columns)
        queries = self.n_columns + self.packing.columns
        if kind == CHUNKED:
            assert layers.chunk is not None
            return causal_mask(queries, keys, self.dtype, chunk=layers.chunk, first=self.first)
        if kind == REFERENCE and self.prompt is not None:
            return causal_mask(queries, keys, self.dtype, window=layers.window, always=self.prompt)
        return causal_mask(queries, keys, self.dtype, window=layers.window if kind == SLIDING else None)

    def _keys(self, kind: str, layers: LayerKinds) -> Slots:
        """The slots in the keys of the first layer of a kind."""
        length, first = self.span(layers.kinds.index(kind), self.packing.columns.shape[1])
        if kind != REFERENCE or self.prompt is None:
            return self.slots.span(length, first)
        prompt, answer = self.slots.span(self.prompt, 0), self.slots.span(length - self.prompt, self.prompt + first)
        return prompt.followed_by(answer)

    def _padding(self) -> Bool[Tensor, "batch new"] | None:
        """Which of the remaining new tokens a layer with a state is to take in; None for all."""
        real = self._real()
        return None if real.shape[1] == 1 or bool(real.all()) else real

    def _real(self) -> Bool[Tensor, "batch new"]:
        """Which of the remaining new tokens are neither padding nor holes."""
        return self.slots.valid[:, -self.packing.columns.shape[1] :]


def causal_mask(
    queries: Int[Tensor, "batch queries"],
    keys: Slots,
    dtype: torch.dtype,
    window: int | None = None,
    chunk: int | None = None,
    first: Int[Tensor, " batch"] | None = None,
    always: int = 0,
) -> Shaped[Tensor, "batch one queries keys"]:
    """Make a causal mask. A query does not attend to keys `window` or more columns before it, except for the first
    `always` keys, nor to keys outside its chunk of `chunk` columns, counted from each row's `first` column, or from 0
    if that is None."""
    age = queries[:, :, None] - keys.columns[:, None]
    allowed = (age >= 0) & keys.valid[:, None]
    if window is not None:
        exempt = torch.arange(age.shape[-1], device=age.device) < always
        allowed &= (age < window) | exempt
    if chunk is not None:
        start = 0 if first is None else first[:, None]
        of_query, of_key = ((columns - start).div(chunk, rounding_mode="floor") for columns in (queries, keys.columns))
        allowed &= of_query[:, :, None] == of_key[:, None]
    return additive(allowed, dtype)[:, None]


def additive(allowed: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Shaped[Tensor, "*shape"]:
    """Return what a mask adds to the logits in a dtype: 0 where it allows attention, and the lowest number elsewhere;
    the mask itself if the dtype is bool."""
    if dtype == torch.bool:
        return allowed
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)


def masked_out(mask: Tensor, where: Bool[Tensor, "*shape"]) -> Tensor:
    """Return a bool or additive mask that also forbids attention where `where`, which may broadcast, is true."""
    return mask.masked_fill(where, False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min)


def add_bias(
    mask: Shaped[Tensor, "batch heads queries keys"], bias: Float[Tensor, "batch keys"], dtype: torch.dtype
) -> Float[Tensor, "batch heads queries keys"]:
    """Make an additive mask that also adds each key's bias, which is at least 0, for every query."""
    mask = additive(mask, dtype) if mask.dtype == torch.bool else mask
    return mask + bias[:, None, None].to(mask.dtype)


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
    still = pattern.expand(batch, -1, -1, -1).gather(2, rows).gather(3, columns)
    return masked_out(still, ~(keys.valid & (place >= 0))[:, None, None])
