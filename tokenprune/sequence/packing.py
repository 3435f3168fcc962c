"""The columns of a call, those that are kept, and the cache slots that hold them.

A column is an index into the caller's sequence, dropped tokens included; a slot is an index into a cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Real, Shaped
from torch import Tensor
from torch.nn.functional import pad

IGNORED_LABEL = -100  # the label that every Hugging Face loss leaves out


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """The new columns of a call.

    visual: masks of the visual tokens, by modality.
    real: a mask of the columns that are not padding.
    image_starts: a mask, on the CPU, of the columns at which images start, for modalities encoded as separate tiles;
        None for others.
    visual_cpu, real_cpu: copies on the CPU. All counting is done there, so that a forward waits for the GPU only once.
    keeps_ends: whether padding at the end of rows stays.
    """

    visual: Mapping[str, Bool[Tensor, "batch new"]]
    real: Bool[Tensor, "batch new"]
    image_starts: Mapping[str, Bool[Tensor, "batch new"] | None]
    visual_cpu: Mapping[str, Bool[Tensor, "batch new"]]
    real_cpu: Bool[Tensor, "batch new"]
    keeps_ends: bool = True

    @classmethod
    def of(
        cls,
        visual: Mapping[str, Bool[Tensor, "batch new"]],
        image_starts: Mapping[str, Bool[Tensor, "batch new"] | None],
        real: Bool[Tensor, "batch new"],
        keeps_ends: bool = True,
    ) -> PromptTokens:
        known = [starts.to(real.device) for starts in image_starts.values() if starts is not None]
        masks = iter(torch.stack([real, *visual.values(), *known]).cpu())
        real_cpu, visual_cpu = next(masks), {name: next(masks) for name in visual}
        starts_cpu = {name: None if starts is None else next(masks) for name, starts in image_starts.items()}
        return cls(visual, real, starts_cpu, visual_cpu, real_cpu, keeps_ends)

    @property
    def n_real(self) -> list[int]:
        """The number of columns in each row that are not padding."""
        return self.real_cpu.sum(1).tolist()

    @property
    def pads_visual(self) -> bool:
        """Whether any visual token is masked like padding."""
        return any(bool((visual & ~self.real_cpu).any()) for visual in self.visual_cpu.values())

    @property
    def n_trailing(self) -> list[int]:
        """The number of padding columns at the end of each row that stay."""
        return self.real_cpu.flip(1).int().argmax(1).tolist() if self.keeps_ends else [0] * len(self.real_cpu)

    def locate(self, modality: str) -> tuple[Int[Tensor, " tokens"], Int[Tensor, " tokens"], Int[Tensor, " tokens"]]:
        """Return the rows and columns of a modality's visual tokens in reading order, on the CPU, and the columns on
        the model's device."""
        rows, columns = self.visual_cpu[modality].nonzero(as_tuple=True)
        visual = self.visual[modality]
        return rows, columns, true_indices(visual.flatten(), len(rows)) % visual.shape[1]

    def without_answers(self, labels: Int[Tensor, "batch new"]) -> PromptTokens:
        """Return the prompt without the answers appended to it for training. An answer begins at the first label that
        follows unlabelled text after the row's last image; a row without such a label stays whole."""
        labelled = (labels != IGNORED_LABEL).cpu()
        visual = torch.stack([*self.visual_cpu.values()]).any(0)
        columns = torch.arange(labels.shape[1], device="cpu")
        last = torch.where(visual, columns, -1).amax(1, keepdim=True)
        begins = labelled & ~pad(labelled, (1, -1)) & (columns > last + 1)
        in_prompt = begins.cumsum(1) == 0
        return replace(self, real=self.real & in_prompt.to(self.real.device), real_cpu=self.real_cpu & in_prompt)

    def text_after(self, row: int, column: int) -> Int[Tensor, " text"]:
        """Return the text columns of a row after a column; the row's last real column if there are none."""
        n = int((self.real_cpu[row] & ~torch.stack([*self.visual_cpu.values()])[:, row].any(0))[column + 1 :].sum())
        if n == 0:
            return true_indices(self.real[row], self.n_real[row])[-1:]
        text = self.real[row] & ~torch.stack([*self.visual.values()])[:, row].any(0)
        return column + 1 + true_indices(text[column + 1 :], n)


@dataclass(frozen=True, eq=False)
class Packing:
    """The kept columns of a batch of sequences, packed to the length of the longest.

    columns: the kept columns, ascending within each row, out of `n_columns`.
    valid: False for holes: filler that nothing may attend to, and padding that stays.
    counts: the number of valid columns per row, known on the CPU to avoid waiting for a GPU.
    trailing: the number of padding columns at the end of each row that stay; empty if there are none.
    """

    columns: Int[Tensor, "batch kept"]
    valid: Bool[Tensor, "batch kept"]
    n_columns: int
    counts: tuple[int, ...]
    trailing: tuple[int, ...] = ()

    @property
    def holes(self) -> bool:
        return min(self.counts) < self.columns.shape[1]

    @property
    def drops(self) -> bool:
        """Whether any column is dropped. If not, `columns` has all of them, in order."""
        return self.columns.shape[1] < self.n_columns or self.holes

    def places(self) -> Int[Tensor, "batch columns"]:
        """The place of each column in the packing; 0 for columns that it does not hold."""
        return inverse(self.columns, self.valid, self.n_columns)

    def runs_along(self, value: Any) -> bool:
        """Whether a value is a tensor with an entry for every column: (batch or 1, length, ...)."""
        if not isinstance(value, Tensor) or value.ndim < 2:
            return False
        return value.shape[0] in (1, len(self.columns)) and value.shape[1] == self.n_columns

    def gather_tokens(self, tensor: Shaped[Tensor, "rows length *rest"]) -> Shaped[Tensor, "batch kept *rest"]:
        """Gather the kept columns of a (batch or 1, length, ...) tensor; a view if nothing is dropped."""
        batch = len(self.columns)
        if not self.drops:
            return tensor.expand(batch, *tensor.shape[1:])
        columns = self.columns.to(tensor.device)
        if batch == 1:  # index_select copies whole rows, gather one number at a time
            return tensor.index_select(1, columns[0])
        return tensor.expand(batch, *tensor.shape[1:])[torch.arange(batch, device=columns.device)[:, None], columns]

    def gather_ids(self, ids: Real[Tensor, "*components rows length"]) -> Real[Tensor, "*components batch kept"]:
        """Gather the kept position IDs; with several components (M-RoPE), the same columns of each."""
        return (
            self.gather_tokens(ids) if ids.ndim == 2 else torch.stack([self.gather_ids(component) for component in ids])
        )


def pack(keep: Bool[Tensor, "batch length"], counts: Sequence[int], trailing: Sequence[int] = ()) -> Packing:
    """Pack the kept columns of each row; `counts` says how many each has.

    Shorter rows have holes on the left, so that the last columns of all rows stay last, as in the caller's batch.

    trailing: how many padding columns at the end of each row stay in their places.
    """
    stays, n_columns = keep, keep.shape[1]
    if any(trailing):
        ends = n_columns - torch.tensor(trailing, device=keep.device)
        stays = keep | (torch.arange(n_columns, device=keep.device) >= ends[:, None])
    length = max(map(sum, zip(counts, trailing or [0] * len(counts), strict=True)))
    place = torch.arange(length, device=keep.device) - (length - stays.sum(1, keepdim=True))
    columns = true_indices(stays, length).gather(1, place.clamp(min=0)).masked_fill(place < 0, 0)
    valid = (place >= 0) & keep.gather(1, columns)
    return Packing(columns, valid, n_columns, tuple(counts), tuple(trailing) if any(trailing) else ())


def inverse(
    columns: Int[Tensor, "batch places"], valid: Bool[Tensor, "batch places"], n_columns: int
) -> Int[Tensor, "batch columns"]:
    """Return the place of each of `n_columns` columns among `columns`; 0 for those that are not there."""
    place = torch.zeros(len(columns), n_columns, dtype=torch.long, device=columns.device)
    order = torch.arange(columns.shape[1], device=columns.device).expand_as(columns)
    # Holes are at column 0, which a real token may have too: the token wins.
    return place.scatter_reduce_(1, columns, order * valid, "amax")


def true_indices(mask: Bool[Tensor, "*rows length"], count: int) -> Int[Tensor, "*rows count"]:
    """Return the indices where a mask is true, in order, given their number.

    With several rows, `count` is the highest number, and shorter rows are filled with other indices. Unlike `nonzero`,
    this does not wait for a GPU.
    """
    # A stable sort of the flags moves the true ones to the front in order.
    return (~mask).int().argsort(dim=-1, stable=True)[..., :count]


def identity_packing(batch: int, n_new: int, device: torch.device) -> Packing:
    """Make the packing of a call from which nothing is dropped."""
    columns = torch.arange(n_new, device=device).expand(batch, -1)
    return Packing(columns, torch.ones_like(columns).bool(), n_new, (n_new,) * batch)


@dataclass(frozen=True, eq=False)
class Slots:
    """The slots of a cache.

    columns: the column that each slot holds.
    valid: whether anything may attend to each slot.
    bias: what is added to the attention logits of each slot's key; None if nothing is.
    """

    columns: Int[Tensor, "batch slots"]
    valid: Bool[Tensor, "batch slots"]
    bias: Float[Tensor, "batch slots"] | None = None

    @classmethod
    def empty(cls, batch: int, device: torch.device) -> Slots:
        columns = torch.zeros(batch, 0, dtype=torch.long, device=device)
        return cls(columns, columns.bool())

    def extend(self, n: int, first: int) -> Slots:
        """Return the slots with `n` more columns from `first` on, one per slot."""
        columns = torch.arange(first, first + n, device=self.columns.device).expand(len(self.columns), -1)
        return self.followed_by(Slots(columns, torch.ones_like(columns).bool()))

    def append(self, packing: Packing, first: int, bias: Float[Tensor, "batch kept"] | None = None) -> Slots:
        """Return the slots with the kept columns of a packing that starts at column `first`, and their bias."""
        return self.followed_by(Slots(first + packing.columns, packing.valid, bias))

    def followed_by(self, more: Slots) -> Slots:
        """Return these slots, followed by more."""
        columns, valid = torch.cat([self.columns, more.columns], 1), torch.cat([self.valid, more.valid], 1)
        if self.bias is None and more.bias is None:
            return Slots(columns, valid)
        parts = [
            torch.zeros(part.columns.shape, dtype=torch.float32, device=part.columns.device)
            if part.bias is None
            else part.bias
            for part in (self, more)
        ]
        return Slots(columns, valid, torch.cat(parts, 1))

    def mask_padding(self, padding: Bool[Tensor, "rows columns"]) -> Slots:
        """Return the slots with padding columns marked invalid."""
        return replace(self, valid=self.valid & ~padding.expand(len(self.valid), -1).gather(1, self.columns))

    def span(self, length: int, first: int) -> Slots:
        """Return `length` slots from `first` on; unused slots of a static cache are invalid."""
        columns, valid = (part[:, first : first + length] for part in (self.columns, self.valid))
        room = length - columns.shape[1]
        bias = None if self.bias is None else pad(self.bias[:, first : first + length], (0, room))
        return Slots(pad(columns, (0, room)), pad(valid, (0, room)), bias)
