"""Attention masks after pruning: the one place that makes them.

A mask comes over columns, as the unpruned model has it: a pruned cache answers its logical lengths until the language
model is entered, so whatever transformers writes before (causal, prefix, picture blocks, windows) is right for the
unpruned sequence. Here it becomes one over slots: the rows and columns that are left are gathered. A sliding window
counts columns, so where the language model would write the mask itself, counting slots, it is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

from tokenprune.errors import PruningError
from tokenprune.sequence.packing import Packing

FULL, SLIDING = "full_attention", "sliding_attention"

#: A padding mask, a pattern (4-D), a pattern for each kind of layer (None: causal), or nothing.
Mask = Tensor | Mapping[str, Tensor | None] | None


@dataclass(frozen=True)
class LayerKinds:
    """How the decoder layers attend.

    kinds: of each layer, FULL or SLIDING.
    window: how many columns a query of a SLIDING layer attends to, itself included.
    by_kind: whether the language model takes ready masks in a dict, by kind.
    """

    kinds: tuple[str, ...]
    window: int | None
    by_kind: bool

    @property
    def sliding(self) -> bool:
        return SLIDING in self.kinds


@dataclass(frozen=True, eq=False)
class Slots:
    """The column that each slot of a cache holds, and whether anything may attend to it."""

    columns: Int[Tensor, "batch slots"]
    valid: Bool[Tensor, "batch slots"]

    @classmethod
    def empty(cls, batch: int, device: torch.device) -> Slots:
        columns = torch.zeros(batch, 0, dtype=torch.long, device=device)
        return cls(columns, columns.bool())

    def grown(self, n: int, first: int) -> Slots:
        """With `n` columns from `first` on, one per slot."""
        columns = torch.arange(first, first + n, device=self.columns.device).expand(len(self.columns), -1)
        return Slots(torch.cat([self.columns, columns], 1), pad(self.valid, (0, n), value=True))

    def appended(self, packing: Packing, first: int) -> Slots:
        """With what is left of the columns from `first` on."""
        return Slots(torch.cat([self.columns, first + packing.columns], 1), torch.cat([self.valid, packing.valid], 1))

    def without(self, padding: Bool[Tensor, "rows columns"]) -> Slots:
        """With nothing valid that is padding."""
        return Slots(self.columns, self.valid & ~padding.expand(len(self.valid), -1).gather(1, self.columns))

    def span(self, length: int, first: int) -> Slots:
        """`length` slots from `first` on; those that a static cache has only room for are not valid."""
        columns, valid = (part[:, first : first + length] for part in (self.columns, self.valid))
        room = length - columns.shape[1]
        return Slots(pad(columns, (0, room)), pad(valid, (0, room)))


@dataclass(frozen=True, eq=False)
class MaskRequest:
    """One call of the language model.

    slots: those of the cache, and then those of the new tokens that are left.
    packing: what is left of the new columns, which begin at `n_columns`.
    span: of a layer, by its index, and a number of queries: how many slots its keys are, and from which one on.
    dtype: bool, or that of masks that are added.
    """

    slots: Slots
    packing: Packing
    n_columns: int
    span: Callable[[int, int], tuple[int, int]]
    dtype: torch.dtype

    def masks(self, mask: Mask, layers: LayerKinds) -> Mask:
        """The masks that the language model takes as they are, from patterns over columns. Without, they are causal
        masks and windows; padding is then in `slots` already."""
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


def prunable_mask(mask: Any) -> Mask:
    """Return an attention mask that was passed to the base model or to the language model. Raises PruningError for a
    kind of mask that cannot be pruned."""
    patterns = list(mask.values()) if isinstance(mask, Mapping) else [mask]
    odd = next((pattern for pattern in patterns if pattern is not None and not isinstance(pattern, Tensor)), None)
    if odd is not None:
        raise PruningError(
            f"an attention mask of type {type(odd).__name__} cannot be pruned. Load the model with "
            f'attn_implementation="sdpa", or generate without a static cache.'
        )
    return mask


def is_pattern(mask: Mask) -> bool:
    """Whether a mask may say more than which columns are padding."""
    return isinstance(mask, Mapping) or (mask is not None and mask.ndim == 4)


def padding_of(mask: Mask, n_columns: int, n_new: int) -> Bool[Tensor, "rows columns"] | None:
    """Which of the `n_columns` and the `n_new` columns behind them are padding; None if none is.

    A pattern tells it of the new ones: a column that no query of its own call attends to, not even itself, is padding.
    Raises PruningError for a mask over any other number of columns.
    """
    total = n_columns + n_new
    if isinstance(mask, Mapping):
        mask = next((pattern for pattern in mask.values() if pattern is not None), None)
    if mask is None:
        return None
    if mask.ndim == 2 and mask.shape[1] == total:
        return ~mask.bool()
    if mask.ndim == 4 and mask.shape[2] == n_new and mask.shape[3] >= n_new:
        first = max(total - mask.shape[3], 0)
        allowed = mask if mask.dtype == torch.bool else mask == 0
        return pad(~allowed[..., n_columns - first : total - first].flatten(1, 2).any(1), (n_columns, 0))
    raise wrong_width(mask, total)


def wrong_width(mask: Tensor, total: int) -> PruningError:
    return PruningError(
        f"attention_mask of shape {tuple(mask.shape)}: the cache and this call hold {total} tokens, those that pruning "
        f"dropped included. Pass a mask of shape (batch, {total}), or none."
    )


def causal_mask(
    queries: Int[Tensor, "batch queries"], keys: Slots, window: int | None, dtype: torch.dtype
) -> Shaped[Tensor, "batch one queries keys"]:
    """The causal mask in which the query at a column attends to nothing that is `window` or more columns before it."""
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
    """What is left of a pattern over the last columns up to the new ones, or beyond them into a static cache's room."""
    width = pattern.shape[-1]
    place = keys.columns - max(n_columns + packing.n_columns - width, 0)
    (batch, n_queries), n_heads = packing.columns.shape, pattern.shape[1]
    rows = packing.columns[:, None, :, None].expand(-1, n_heads, -1, width)
    columns = place.clamp(min=0)[:, None, None].expand(-1, n_heads, n_queries, -1)
    left = pattern.expand(batch, -1, -1, -1).gather(2, rows).gather(3, columns)
    closed = False if left.dtype == torch.bool else torch.finfo(left.dtype).min
    return left.masked_fill(~(keys.valid & (place >= 0))[:, None, None], closed)
