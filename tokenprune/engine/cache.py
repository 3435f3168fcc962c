"""Tracks the logical and the physical length of a pruned KV cache.

After pruning, a cache holds fewer slots (its physical length) than the tokens it stands for (its logical length).
`generate`, chat code and decode loops read the length of a cache to number the next tokens: they need the logical one.
Attention needs the physical one. A pruned cache answers the logical length outside the model's forward and the physical
one inside, and carries a CacheIndex that says which token each slot holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

from tokenprune.engine.stages.slots import StageSlots
from tokenprune.errors import PruningError
from tokenprune.sequence.packing import Packing, Slots, wrong_width

#: What the cache is called in arguments and outputs: the first from 5.2x on, the second before.
CACHE_NAMES = ("cache", "past_key_values")


@dataclass(frozen=True, eq=False)
class CacheIndex:
    """Which token each slot of a cache holds, up to the last forward that pruned. What is appended later is one column
    per slot.

    columns: the column that each slot holds.
    valid: False for holes and padding.
    n_columns: how many columns the described part stands for.
    shift: by how much the next position IDs of each row are lower than the original ones; None if they are the same.
    holes: whether any slot is not valid; kept here because reading it from a GPU at every step is slow.
    stages: the slots that the decoder layers of each in-LLM stage hold; empty if all layers hold all.
    skipped: the decoder layers that were not executed and hold nothing.
    """

    columns: Int[Tensor, "batch slots"]
    valid: Bool[Tensor, "batch slots"]
    n_columns: int
    shift: Int[Tensor, " batch"] | None
    holes: bool
    stages: tuple[StageSlots, ...] = ()
    skipped: tuple[int, ...] = ()

    @classmethod
    def unpruned(cls, batch: int, n_slots: int, device: torch.device, skipped: tuple[int, ...]) -> CacheIndex:
        """The index of a cache that holds every column, except in the `skipped` layers."""
        slots = Slots.empty(batch, device).grown(n_slots, 0)
        return cls(slots.columns, slots.valid, n_slots, None, holes=False, skipped=skipped)

    @property
    def n_dropped(self) -> int:
        return self.n_columns - self.columns.shape[1]

    def check_skipped(self, layers: tuple[int, ...]) -> None:
        """Raise PruningError unless the cache was filled with exactly these layers skipped."""
        if self.skipped != layers:
            raise PruningError(
                f"this cache was filled with {_format_layers(self.skipped)} skipped, and the strategy skips "
                f"{_format_layers(layers)}. Continue with the strategy that it was made with, or start again from an "
                f"empty cache."
            )

    def slots(self, n_slots: int) -> Slots:
        """The slots of a cache that has grown to `n_slots`."""
        return Slots(self.columns, self.valid).grown(n_slots - self.columns.shape[1], self.n_columns)

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
        )

    @classmethod
    def after(
        cls,
        before: CacheIndex | None,
        n_slots: int,
        packing: Packing,
        shift: Int[Tensor, " batch"] | None,
        stages: tuple[StageSlots, ...] = (),
        skipped: tuple[int, ...] = (),
    ) -> CacheIndex:
        """The index after the columns of `packing` were appended to a cache of `n_slots`.

        shift: by how much later position IDs are lower than before. stages: the slots that each in-LLM stage then
            holds. skipped: the layers without any.
        """
        if before is None:  # everything in the cache so far is one column per slot
            batch, device = len(packing.columns), packing.columns.device
            past, n_columns = Slots.empty(batch, device).grown(n_slots, 0), n_slots
        else:
            past, n_columns = before.slots(n_slots), n_slots + before.n_dropped
            shift = before.shift if shift is None else shift if before.shift is None else shift + before.shift
        slots = past.appended(packing, n_columns)
        holes = packing.holes or (before is not None and before.holes)
        return cls(slots.columns, slots.valid, n_columns + packing.n_columns, shift, holes, stages, skipped)


class PrunedCache:
    """Mixed into the class of a cache instance that holds a pruned prompt, outside the model's forward; inside, the
    instance has its own class and costs what it always did.

    Overrides the methods of transformers' Cache that depend on lengths or on batch rows.
    """

    _index: CacheIndex
    _unpruned_class: Any
    layers: list[Any]

    def get_seq_length(self, layer_idx: int = 0, *args: Any) -> Any:
        return self._unpruned_class.get_seq_length(self, layer_idx, *args) + self._index.n_dropped

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
        slots = n_slots(self)
        if tokens_to_remove > 0:
            tokens_to_remove -= slots + self._index.n_dropped
        if tokens_to_remove >= 0:
            return
        cut = self._index.columns.shape[1] - (slots + tokens_to_remove)
        if cut > 0:
            self._index = self._index.without_tail(cut)
        layers, self.layers = (
            self.layers,
            [layer for i, layer in enumerate(self.layers) if i not in self._index.skipped],
        )
        expose_physical(self)
        try:
            self.crop(tokens_to_remove)  # its own class's
        finally:
            expose_logical(self)
            self.layers = layers

    def reset(self) -> None:
        super().reset()  # type: ignore[misc]
        self.__class__ = self._unpruned_class
        del self._index, self._unpruned_class

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
    return getattr(cache, "_index", None)


def set_index(cache: Any, index: CacheIndex) -> None:
    """Make `cache` a pruned one, in place: callers hold references to it."""
    if index_of(cache) is None:
        cache._unpruned_class = type(cache)
    cache._index = index
    expose_logical(cache)


def n_slots(cache: Any) -> int:
    """The physical length of a cache; 0 for None."""
    if cache is None:
        return 0
    return int(getattr(cache, "_unpruned_class", type(cache)).get_seq_length(cache))


def span(cache: Any, n_slots: int, layer: int, n_queries: int) -> tuple[int, int]:
    """How many slots a layer attends to when `n_queries` are appended to `n_slots`, and the first of them."""
    return (n_slots + n_queries, 0) if cache is None else cache.get_mask_sizes(n_queries, layer)


def expose_physical(cache: Any) -> None:
    """Make a pruned cache answer its physical length. Other caches are left alone."""
    if index_of(cache) is not None:
        cache.__class__ = cache._unpruned_class


def expose_logical(cache: Any) -> None:
    """Make a pruned cache answer its logical length again."""
    if index_of(cache) is None:
        return
    base = cache._unpruned_class
    if base not in _pruned_classes:
        _pruned_classes[base] = type(f"Pruned{base.__name__}", (PrunedCache, base), {})
    cache.__class__ = _pruned_classes[base]


def _format_layers(layers: tuple[int, ...]) -> str:
    return f"decoder layers {', '.join(map(str, layers))}" if layers else "no decoder layer"


def find_cache(*places: Any) -> Any:
    """Return the first cache in the arguments or outputs of a call; None if there is none."""
    # dict's own get: an output warns when it is asked for the old name.
    found = (dict.get(place, name) for place in places if isinstance(place, dict) for name in CACHE_NAMES)
    return next((cache for cache in found if cache is not None), None)
