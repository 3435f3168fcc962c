"""Tracks the logical and the physical length of a pruned KV cache.

After pruning, a cache holds fewer slots (its physical length) than the tokens it stands for (its logical length).
`generate`, chat code and decode loops read the length of a cache to number the next tokens: they need the logical one.
Attention needs the physical one. A pruned cache answers the logical length, and carries a CacheIndex that says which
token each slot holds; the language model is given a view of it that answers the physical length. Nothing is switched
back and forth, so whatever interrupts a call leaves the cache as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Real, Shaped
from torch import Tensor
from torch.nn.functional import pad

from tokenprune.engine.stages.slots import StageSlots
from tokenprune.errors import PruningError
from tokenprune.sequence.packing import Packing, Slots, wrong_width


@dataclass(frozen=True, eq=False)
class CacheIndex:
    """Which token each slot of a cache holds, up to the last forward that pruned. What is appended later is one column
    per slot.

    columns: the column that each slot holds.
    valid: False for holes and padding.
    n_columns: how many columns the described part stands for.
    shift: by how much the next position IDs of each row are lower than the original ones; None if they are the same.
    holes: whether any slot is not valid; kept here because reading it from a GPU at every step is slow.
    bias: what is added to the attention logits of each slot's key; None if nothing is.
    stages: the slots that the decoder layers of each in-LLM stage hold; empty if all layers hold all.
    skipped: the decoder layers that were not executed and hold nothing.
    """

    columns: Int[Tensor, "batch slots"]
    valid: Bool[Tensor, "batch slots"]
    n_columns: int
    shift: Real[Tensor, " batch"] | None
    holes: bool
    stages: tuple[StageSlots, ...] = ()
    skipped: tuple[int, ...] = ()
    bias: Float[Tensor, "batch slots"] | None = None

    @classmethod
    def unpruned(cls, batch: int, n_slots: int, device: torch.device, skipped: tuple[int, ...]) -> CacheIndex:
        """The index of a cache that holds every column, except in the `skipped` layers."""
        slots = Slots.empty(batch, device).extend(n_slots, 0)
        return cls(slots.columns, slots.valid, n_slots, None, holes=False, skipped=skipped)

    @property
    def n_dropped(self) -> int:
        return self.n_columns - self.columns.shape[1]

    def check_skipped(self, layers: tuple[int, ...]) -> None:
        """Raise PruningError unless the cache was filled with exactly these layers skipped."""
        if self.skipped != layers:
            raise PruningError(
                f"this cache was filled with decoder layers {list(self.skipped)} skipped, and the strategy skips "
                f"{list(layers)}. Continue with the strategy that it was made with, or start again from an empty cache."
            )

    def slots(self, n_slots: int) -> Slots:
        """The slots of a cache that has grown to `n_slots`."""
        return Slots(self.columns, self.valid, self.bias).extend(n_slots - self.columns.shape[1], self.n_columns)

    def over_slots(self, mask: Shaped[Tensor, "rows columns"] | None, n_columns: int) -> Tensor | None:
        """A padding mask over so many columns as one over the cache's slots; None stays None where no slot is a hole.

        Raises PruningError for a mask over any other number of columns.
        """
        if mask is None:
            return pad(self.valid, (0, n_columns - self.n_columns), value=True) if self.holes else None
        if mask.shape[1] != n_columns:
            raise wrong_width(mask, n_columns)
        mask = mask.to(self.columns.device).expand(len(self.columns), -1)
        described = mask[:, : self.n_columns].gather(1, self.columns)
        return torch.cat([described * self.valid if self.holes else described, mask[:, self.n_columns :]], 1)

    def with_rows(self, pick: Callable[[Tensor], Tensor]) -> CacheIndex:
        """The index of a cache whose batch rows were picked."""
        return replace(
            self,
            columns=pick(self.columns),
            valid=pick(self.valid),
            shift=None if self.shift is None else pick(self.shift),
            stages=tuple(stage.with_rows(pick) for stage in self.stages),
            bias=None if self.bias is None else pick(self.bias),
        )

    def without_tail(self, n: int) -> CacheIndex:
        """The index without its last `n` slots, which must hold the last `n` columns: text that was not pruned."""
        tail = torch.arange(self.n_columns - n, self.n_columns, device=self.columns.device)
        if n > self.columns.shape[1] or not bool((self.columns[:, -n:] == tail).all()):
            raise PruningError(
                "crop would cut a cache in the middle of its pruned visual tokens, and what was dropped there cannot "
                "come back. Start again from an empty cache."
            )
        columns, valid = self.columns[:, :-n], self.valid[:, :-n]
        return replace(
            self,
            columns=columns,
            valid=valid,
            n_columns=self.n_columns - n,
            holes=not bool(valid.all()),
            stages=tuple(stage.without_tail(n) for stage in self.stages),
            bias=None if self.bias is None else self.bias[:, :-n],
        )

    @classmethod
    def after(
        cls,
        before: CacheIndex | None,
        n_slots: int,
        packing: Packing,
        shift: Real[Tensor, " batch"] | None,
        skipped: tuple[int, ...] = (),
        bias: Float[Tensor, "batch kept"] | None = None,
    ) -> CacheIndex:
        """The index after the columns of `packing`, with their `bias`, were appended to a cache of `n_slots`. `shift`
        is by how much later position IDs are lower than before, `skipped` are the layers that hold no slots."""
        if before is None:  # everything in the cache so far is one column per slot
            batch, device = len(packing.columns), packing.columns.device
            past, n_columns = Slots.empty(batch, device).extend(n_slots, 0), n_slots
        else:
            past, n_columns = before.slots(n_slots), n_slots + before.n_dropped
            shift = before.shift if shift is None else shift if before.shift is None else shift + before.shift
        slots, end = past.append(packing, n_columns, bias), n_columns + packing.n_columns
        holes = packing.holes or (before is not None and before.holes)
        return cls(slots.columns, slots.valid, end, shift, holes, skipped=skipped, bias=slots.bias)


class PrunedCache:
    """Mixed into the class of a cache instance that holds a pruned prompt, or is about to.

    Overrides the methods of transformers' Cache that depend on lengths or on batch rows.
    """

    _index: CacheIndex
    _unpruned_class: Any
    layers: list[Any]

    def get_seq_length(self, layer_idx: int = 0, *args: Any) -> Any:
        index = index_of(self)
        return self._unpruned_class.get_seq_length(self, layer_idx, *args) + (0 if index is None else index.n_dropped)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        length, first = self._unpruned_class.get_mask_sizes(self, query_length, layer_idx)
        # Masks made now span all columns, and the free room of a static cache.
        return max(length + first, int(self.get_seq_length()) + query_length), 0

    def update(self, *args: Any, **kwargs: Any) -> Any:
        raise PruningError(
            "this cache holds a pruned prompt, and the model that continues it is not patched. Patch it with "
            "tokenprune.patch(model, ...), or start again from an empty cache."
        )

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last tokens: a negative number of them, or down to a positive logical length."""
        settle(self)
        index = index_of(self)
        if index is None:
            return self.crop(tokens_to_remove)  # its own class's, after an interrupted call has left it unpruned
        slots = n_slots(self)
        if tokens_to_remove > 0:
            tokens_to_remove -= slots + index.n_dropped
        if tokens_to_remove >= 0:
            return None
        cut = index.columns.shape[1] - (slots + tokens_to_remove)
        index = index.without_tail(cut) if cut > 0 else index
        view = physical_view(self)
        view.__dict__ = {**vars(self), "layers": [one for i, one in enumerate(self.layers) if i not in index.skipped]}
        view.crop(tokens_to_remove)
        self._index = index
        return None

    def reset(self) -> None:
        super().reset()  # type: ignore[misc]
        _unprune(self)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """For copies and pickles: the class is made at run time."""
        settle(self)
        return _rebuild, (self._unpruned_class, dict(vars(self)))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[misc]
        self._index = self._index.with_rows(lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        self._index = self._index.with_rows(lambda rows: rows.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)  # type: ignore[misc]
        self._index = self._index.with_rows(lambda rows: rows[indices])


_pruned_classes: dict[type, type] = {}


def index_of(cache: Any) -> CacheIndex | None:
    """The index of a cache; None if nothing was pruned into it."""
    unfinished = getattr(cache, "_unfinished", None)
    # A call that has begun to prune may have been interrupted before anything was written.
    if unfinished is not None and n_slots(cache) < cache._index.columns.shape[1]:
        return unfinished[0]
    return getattr(cache, "_index", None)


def set_index(cache: Any, index: CacheIndex) -> None:
    """Make `cache` a pruned one, in place: callers hold references to it."""
    if getattr(cache, "_index", None) is None:
        base = cache._unpruned_class = type(cache)
        if base not in _pruned_classes:
            _pruned_classes[base] = type(f"Pruned{base.__name__}", (PrunedCache, base), {})
        cache.__class__ = _pruned_classes[base]
    cache._index = index
    vars(cache).pop("_unfinished", None)


def begin_pruning(cache: Any, index: CacheIndex, finish: Callable[[], CacheIndex]) -> None:
    """Make `cache` one that `index` describes as soon as the language model has filled it. `finish` makes the final
    index, and raises PruningError as long as the forward is not complete."""
    before = index_of(cache)
    set_index(cache, index)
    cache._unfinished = before, finish


def settle(cache: Any) -> None:
    """Finish or undo what an interrupted call has left of a cache.

    Raises PruningError for a cache that some layers have filled and others have not.
    """
    unfinished = getattr(cache, "_unfinished", None)
    if unfinished is None:
        return
    before, finish = unfinished
    if index_of(cache) is not before:
        set_index(cache, finish())
    elif before is None:
        _unprune(cache)
    else:
        set_index(cache, before)


def physical_view(cache: Any) -> Any:
    """The same cache, of its own class and with its physical length, as the language model must see it."""
    if getattr(cache, "_index", None) is None:
        return cache
    view = object.__new__(cache._unpruned_class)
    view.__dict__ = vars(cache)  # the same dict: what is written through one is in the other
    return view


def pass_view(kwargs: dict[str, Any], cache: Any) -> Any:
    """Put the physical view of a cache in its place in the language model's arguments, and return it."""
    view = physical_view(cache)
    for name, value in kwargs.items():
        if value is cache:
            kwargs[name] = view
    return view


def return_cache(output: Any, view: Any, cache: Any) -> Any:
    """An output of the language model with the cache in place of its view."""
    if isinstance(output, tuple):
        return tuple(cache if part is view else part for part in output)
    if isinstance(output, dict):
        for name, part in output.items():
            if part is view:
                output[name] = cache
    return output


def _unprune(cache: Any) -> None:
    cache.__class__ = cache._unpruned_class
    for name in ("_index", "_unpruned_class", "_unfinished"):
        vars(cache).pop(name, None)


def _rebuild(base: type, state: dict[str, Any]) -> Any:
    cache = object.__new__(base)
    index = state.pop("_index", None)
    vars(cache).update(state)
    if index is not None:
        set_index(cache, index)
    return cache


def n_slots(cache: Any) -> int:
    """The physical length of a cache; 0 for None."""
    if cache is None:
        return 0
    return int(getattr(cache, "_unpruned_class", type(cache)).get_seq_length(cache))
