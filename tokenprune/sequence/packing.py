"""The columns of a call, the ones that are left, and the slots of a cache that hold them.

A column is an index into the sequence as the caller wrote it, dropped tokens included; a slot is an index into a cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

from tokenprune.errors import PruningError

#: A padding mask, a pattern (4-D), a pattern for each kind of layer (None: causal), or nothing.
Mask = Tensor | Mapping[str, Tensor | None] | None


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """Which of the new columns are visual tokens, by modality, and which are `real`, no padding.

    host: the same on the CPU, where counting costs nothing: whatever is counted is counted there, so that a GPU is
        asked for it once in a forward. begins: on the CPU too, at which columns a image begins, of modalities whose
        function is given tiles.
    """

    visual: Mapping[str, Bool[Tensor, "batch new"]]
    real: Bool[Tensor, "batch new"]
    begins: Mapping[str, Bool[Tensor, "batch new"] | None]
    host: Mapping[str, Bool[Tensor, "batch new"]]
    host_real: Bool[Tensor, "batch new"]

    @classmethod
    def of(
        cls,
        visual: Mapping[str, Bool[Tensor, "batch new"]],
        begins: Mapping[str, Bool[Tensor, "batch new"] | None],
        real: Bool[Tensor, "batch new"],
    ) -> PromptTokens:
        told = [begin for begin in begins.values() if begin is not None]
        masks = iter(torch.stack([real, *visual.values(), *told]).cpu())
        host_real, host = next(masks), {name: next(masks) for name in visual}
        found = {name: None if begin is None else next(masks) for name, begin in begins.items()}
        return cls(visual, real, found, host, host_real)

    @property
    def n_real(self) -> list[int]:
        """How many columns of each row are no padding."""
        return self.host_real.sum(1).tolist()

    @property
    def pads_visual(self) -> bool:
        """Whether any visual token is masked as padding is."""
        return any(bool((visual & ~self.host_real).any()) for visual in self.host.values())

    @property
    def right_padded(self) -> bool:
        """Whether padding is on the right only. It makes no difference to a single row."""
        real = self.host_real
        return len(real) > 1 and bool(real[:, 0].all() & ~real[:, -1].all())

    def places(self, modality: str) -> tuple[Int[Tensor, " tokens"], Int[Tensor, " tokens"], Int[Tensor, " tokens"]]:
        """Row and column of every visual token of a modality in reading order, both on the CPU; and the column where
        the model is."""
        rows, columns = self.host[modality].nonzero(as_tuple=True)
        visual = self.visual[modality]
        return rows, columns, true_indices(visual.flatten(), len(rows)) % visual.shape[1]

    def text_after(self, row: int, column: int) -> Int[Tensor, " text"]:
        """The columns of a row behind a column that are no visual tokens; its last column if there are none."""
        n = int((self.host_real[row] & ~torch.stack([*self.host.values()])[:, row].any(0))[column + 1 :].sum())
        if n == 0:
            return true_indices(self.real[row], self.n_real[row])[-1:]
        text = self.real[row] & ~torch.stack([*self.visual.values()])[:, row].any(0)
        return column + 1 + true_indices(text[column + 1 :], n)


@dataclass(frozen=True, eq=False)
class Packing:
    """The surviving columns of a batch of sequences, packed to the longest.

    columns: ascending within each row, out of `n_columns`.
    valid: False where there is a hole, filler that nothing may attend to.
    counts: how many of each row are valid; known here, because asking a GPU is slow.
    right_padded: whether holes are on the right.
    """

    columns: Int[Tensor, "batch kept"]
    valid: Bool[Tensor, "batch kept"]
    n_columns: int
    counts: tuple[int, ...]
    right_padded: bool = False

    @property
    def holes(self) -> bool:
        return min(self.counts) < self.columns.shape[1]

    @property
    def drops(self) -> bool:
        """Whether anything is left out. If not, the columns are all there are, in order."""
        return self.columns.shape[1] < self.n_columns or self.holes

    def gather_tokens(self, tensor: Shaped[Tensor, "rows length *rest"]) -> Shaped[Tensor, "batch kept *rest"]:
        """The surviving columns of a (batch or 1, length, ...) tensor; no copy of it if that is all of them."""
        if not self.drops:
            return tensor.expand(len(self.columns), *tensor.shape[1:])
        index = self.columns.reshape(*self.columns.shape, *[1] * (tensor.ndim - 2))
        index = index.expand(-1, -1, *tensor.shape[2:])
        return tensor.expand(len(self.columns), *tensor.shape[1:]).gather(1, index)

    def gather_ids(self, ids: Int[Tensor, "*components rows length"]) -> Int[Tensor, "*components batch kept"]:
        """The surviving position IDs; with several components (M-RoPE), the same columns of each."""
        return (
            self.gather_tokens(ids) if ids.ndim == 2 else torch.stack([self.gather_ids(component) for component in ids])
        )


def pack(keep: Bool[Tensor, "batch length"], counts: Sequence[int], right_padded: bool) -> Packing:
    """Packs the kept columns of each row, of which there are `counts`. Shorter rows get their holes on the left, or on
    the right if `right_padded`, so that the last (or first) token of every row stays in line, as the caller had it."""
    length = max(counts)
    columns = true_indices(keep, length)
    place = torch.arange(length, device=keep.device).expand(len(keep), -1)
    n_kept = keep.sum(1, keepdim=True)
    if not right_padded:
        place = place - (length - n_kept)
        columns = columns.gather(1, place.clamp(min=0))
    valid = (place >= 0) & (place < n_kept)
    return Packing(columns.masked_fill(~valid, 0), valid, keep.shape[1], tuple(counts), right_padded)


def true_indices(mask: Bool[Tensor, "*rows length"], count: int) -> Int[Tensor, "*rows count"]:
    """Where a mask is true, in order, given how often, or of several rows how often at most; others follow. `nonzero`
    would ask a GPU how often."""
    # A stable sort of the flag brings the true ones to the front in order.
    return (~mask).int().argsort(dim=-1, stable=True)[..., :count]


def identity_packing(batch: int, n_new: int, device: torch.device) -> Packing:
    """All columns of a call from which nothing is dropped."""
    columns = torch.arange(n_new, device=device).expand(batch, -1)
    return Packing(columns, torch.ones_like(columns).bool(), n_new, (n_new,) * batch)


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


def is_pattern(mask: Mask) -> bool:
    """Whether a mask may say more than which columns are padding."""
    return isinstance(mask, Mapping) or (mask is not None and mask.ndim == 4)


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
