"""The part of a cache that one denoising step reads: which slots of every layer, under which masks."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.engine.cache.pruned import index_of, n_slots, physical_view
from tokenprune.errors import PruningError
from tokenprune.sequence.finished_masks import additive, gather_pattern
from tokenprune.sequence.masks import SLIDING, LayerKinds, is_pattern
from tokenprune.sequence.packing import Packing, Slots, identity_packing, pack


@dataclass(eq=False)
class StepCache:
    """The slots that the steps of a stage read.

    cache: the cache as the denoiser gets it, cut to these slots.
    masks: by kind of layer, the mask over the slots and the canvas; None where all may be attended to.
    made_from: the mask that the denoiser was given.
    taken: by kind of layer, which slots of the cache are read, and whether they are valid.
    n_slots: the physical length of the whole cache.
    """

    cache: Any
    masks: Mapping[str, Tensor | None]
    made_from: Any
    taken: dict[str, Packing]
    n_slots: int

    @property
    def n_bytes(self) -> int:
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    def spread(self, kind: str, values: Float[Tensor, "batch read"]) -> Float[Tensor, "batch slots"]:
        """Spread values of the slots that layers of a kind read over all slots; 0 elsewhere."""
        taken = self.taken[kind]
        whole = values.new_zeros(len(values), self.n_slots)
        return whole.scatter_add_(1, taken.columns, values * taken.valid)


def cached(cache: Any) -> tuple[Slots, int]:
    """The slots of a cache, and how many columns they stand for."""
    n, index = n_slots(cache), index_of(cache)
    if index is not None:
        return index.slots(n), n + index.n_dropped
    keys = cache.layers[0].keys
    return Slots.empty(len(keys), keys.device).extend(n, 0), n


def step_cache(
    cache: Any,
    kinds: LayerKinds,
    mask: Any,
    n_canvas: int,
    dtype: torch.dtype,
    dropped: Bool[Tensor, "batch slots"] | None,
) -> StepCache:
    """What a step of `n_canvas` tokens reads of a cache.

    mask: the denoiser's mask: over columns and canvas (2-D), a pattern by kind of layer, or None.
    dtype: the dtype of additive masks, or bool.
    dropped: the slots that late-step pruning leaves out.
    """
    view, (slots, n_columns) = physical_view(cache), cached(cache)
    if isinstance(mask, Tensor) and mask.ndim == 2:
        slots = slots.mask_padding(~mask[:, :n_columns].bool())
    canvas = identity_packing(len(slots.columns), n_canvas, slots.columns.device)
    layers, masks, taken = list(view.layers), {}, {}
    for kind in set(kinds.kinds):
        held = _held(view, kinds, kind, slots, n_columns)
        numbers = [number for number, other in enumerate(kinds.kinds) if other == kind]
        first = slots.columns.shape[1] - held.columns.shape[1]
        place = torch.arange(held.columns.shape[1], device=held.columns.device).expand_as(held.columns)
        packing = Packing(place, held.valid, place.shape[1], (place.shape[1],) * len(place))
        if dropped is not None:
            keep = held.valid & ~dropped[:, first:]
            packing = pack(keep, keep.sum(1).tolist())
            held = Slots(held.columns.gather(1, packing.columns), packing.valid)
            for number in numbers:
                layers[number] = _gather_slots(layers[number], packing.columns)
        taken[kind] = Packing(packing.columns + first, packing.valid, slots.columns.shape[1], packing.counts)
        masks[kind] = _mask(mask, kind, held.append(canvas, n_columns), canvas, n_columns, dtype)
    whole = object.__new__(type(view))
    whole.__dict__ = {**vars(view), "layers": layers}
    return StepCache(whole, masks, mask, taken, slots.columns.shape[1])


def unpruned_bytes(cache: Any, kinds: LayerKinds, n_columns: int) -> int:
    """The bytes of keys and values that a step would read of the unpruned cache."""
    total = 0
    for kind, layer in zip(kinds.kinds, physical_view(cache).layers, strict=True):
        n_held = min(n_columns, kinds.window - 1) if kind == SLIDING and kinds.window is not None else n_columns
        total += (layer.keys.nbytes + layer.values.nbytes) // max(layer.keys.shape[-2], 1) * n_held
    return total


def _held(view: Any, kinds: LayerKinds, kind: str, slots: Slots, n_columns: int) -> Slots:
    """The slots that the layers of a kind hold; those outside a window over the unpruned sequence are invalid.

    Raises PruningError for a cache that keeps its keys in another way.
    """
    n_held, n_all = view.layers[kinds.kinds.index(kind)].keys.shape[-2], slots.columns.shape[1]
    expected = n_all if kind != SLIDING or kinds.window is None else min(n_all, kinds.window - 1)
    if n_held != expected:
        raise PruningError(
            f"a {type(view).__name__} whose layers hold {n_held} of {n_all} tokens cannot be read by a denoiser. "
            f"Generate with a dynamic cache, which is the default."
        )
    held = slots.span(n_held, n_all - n_held)
    if kind != SLIDING or kinds.window is None:
        return held
    return Slots(held.columns, held.valid & (held.columns > n_columns - kinds.window))


def _gather_slots(layer: Any, slots: Int[Tensor, "batch read"]) -> Any:
    """A layer of a cache with some of its slots."""
    gathered = copy(layer)
    for name in ("keys", "values"):
        states = getattr(layer, name)
        places = slots[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[-1])
        setattr(gathered, name, states.gather(2, places))
    return gathered


def _mask(mask: Any, kind: str, keys: Slots, canvas: Packing, n_columns: int, dtype: torch.dtype) -> Tensor | None:
    pattern = mask.get(kind) if isinstance(mask, Mapping) else mask if is_pattern(mask) else None
    if pattern is not None:
        return gather_pattern(pattern, canvas, keys, n_columns)
    if bool(keys.valid.all()):
        return None
    allowed = keys.valid[:, None, None].expand(-1, 1, canvas.columns.shape[1], -1)
    return additive(allowed, dtype)
