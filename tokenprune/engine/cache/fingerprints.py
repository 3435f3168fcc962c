"""Recognises the tensors of pruned caches, wherever they turn up.

Every prompt that is pruned into a cache leaves a fingerprint here: for each row, the key of one token that is in an
earlier slot than without pruning; an unpruned cache has another token in that slot. Tensors are thus recognised within
this process, even if they were cloned, moved, offloaded, cast or cropped, or if rows were picked.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.engine.cache.index import CacheIndex
from tokenprune.sequence.packing import Slots

#: The attribute of a pruned cache's first layer, which shallow copies share, that holds the largest number of slots the
#: last call may have left.
MOST_SLOTS = "_most_slots"
#: How many rows are remembered for each device, dtype and width of keys, and about how many numbers of each key: some
#: 600 kB.
N_FINGERPRINTS, N_NUMBERS = 8192, 16


@dataclass(eq=False)
class KeyFingerprints:
    """The last rows that were pruned. The tensors have their full size from the start, so that memory does not grow.

    slots: a slot of each row that holds a later token than without pruning; -1 if there is none.
    keys: some numbers of the key in that slot.
    n: how many rows are in use.
    following: the next row to overwrite.
    """

    slots: Int[Tensor, " fingerprints"]
    keys: Float[Tensor, "fingerprints numbers"]
    n: int = 0
    following: int = 0

    @classmethod
    def none(cls, keys: Tensor) -> KeyFingerprints:
        with torch.inference_mode(False):  # they are written to in any mode
            slots = torch.full((N_FINGERPRINTS,), -1, dtype=torch.long, device=keys.device)
            return cls(slots, keys.new_zeros(N_FINGERPRINTS, _sampled(keys).shape[-1]))

    def add(self, slots: Int[Tensor, " rows"], keys: Float[Tensor, "rows numbers"]) -> None:
        """Remember rows in place of the oldest."""
        n_rows = len(slots)
        places = torch.arange(self.following, self.following + n_rows, device=self.slots.device) % N_FINGERPRINTS
        self.slots.index_copy_(0, places, slots)
        self.keys.index_copy_(0, places, keys)
        self.n, self.following = min(N_FINGERPRINTS, self.n + n_rows), (self.following + n_rows) % N_FINGERPRINTS

    def any_in(self, keys: Float[Tensor, "batch heads slots width"], n_slots: int) -> Bool[Tensor, ""]:
        """Whether a layer's keys, of which `n_slots` are in use, match a fingerprint in its slot."""
        slots, marked = self.slots[: self.n].to(keys.device), self.keys[: self.n].to(keys)
        same = (_sampled(keys).index_select(1, slots.clamp(0, n_slots - 1)) == marked).all(-1)
        return (same & (slots >= 0) & (slots < n_slots)).any()


_fingerprints: dict[tuple[torch.device, torch.dtype, int], KeyFingerprints] = {}
_lock = Lock()


def fingerprint_pruned(cache: Any, index: CacheIndex, padding: Bool[Tensor, "rows columns"] | None) -> None:
    """Remember a cache that `index` describes. `padding`: which of all columns are padding; None if none is."""
    layers = getattr(cache, "layers", None)
    if not layers:  # of a class of its own, in older versions of transformers
        return
    setattr(layers[0], MOST_SLOTS, index.columns.shape[1])
    slots = Slots(index.columns, index.valid)
    for number in _by_use(layers):
        stage = next((stage for stage in reversed(index.stages) if stage.layer <= number), None)
        held = slots if stage is None else Slots(slots.columns.gather(1, stage.slots), stage.valid)
        keys = getattr(layers[number], "keys", None)
        if not isinstance(keys, Tensor) or keys.ndim != 4 or keys.shape[2] < held.columns.shape[1]:
            continue  # skipped, or stored in another way
        moved = _is_moved(held, padding)
        first, some = moved.int().argmax(1).to(keys.device), moved.any(1).to(keys.device)
        numbers = _sampled(keys)
        marked = numbers.gather(1, first[:, None, None].expand(-1, 1, numbers.shape[2]))[:, 0]
        kind = keys.device, keys.dtype, keys.shape[3]
        with _lock:
            if kind not in _fingerprints:
                _fingerprints[kind] = KeyFingerprints.none(keys)
            _fingerprints[kind].add(first.masked_fill(~some, -1), marked)
        return


def _sampled(keys: Float[Tensor, "batch heads slots width"]) -> Float[Tensor, "batch slots numbers"]:
    """About N_NUMBERS numbers of each of the first head's keys, spread over their width."""
    return keys.detach()[:, 0, :, :: max(1, keys.shape[3] // N_NUMBERS)]


def _by_use(layers: list[Any]) -> list[int]:
    """The layers of a cache, last to first, because later ones hold fewer slots; those with a window come at the end,
    because they do not keep every slot in its place."""
    return sorted(range(len(layers)), key=lambda number: (getattr(layers[number], "is_sliding", False), -number))


def _is_moved(held: Slots, padding: Bool[Tensor, "rows columns"] | None) -> Bool[Tensor, "batch slots"]:
    """Which slots hold a token that follows a dropped one. Dropped padding does not count."""
    if padding is None:
        return held.valid & (held.columns >= held.valid.long().cumsum(1))
    padding = padding.to(held.columns.device).expand(len(held.columns), -1)
    valid = held.mask_padding(padding).valid
    return valid & ((~padding).long().cumsum(1).gather(1, held.columns) > valid.long().cumsum(1))


def is_fingerprinted(layers: list[Any], length: int) -> bool:
    """Whether any layer of a cache of this length holds the keys of a fingerprint. Waits once for each device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for layer in layers if length else ():
        keys = getattr(layer, "keys", None)
        if isinstance(keys, Tensor) and keys.ndim == 4 and keys.numel():
            n_used = min(length, keys.shape[2])
            with _lock:  # another thread may overwrite a fingerprint's slot and key
                by_device.setdefault(keys.device, []).extend(
                    fingerprints.any_in(keys, n_used) for fingerprints in _comparable(keys)
                )
    return any(bool(torch.stack(there).any()) for there in by_device.values() if there)


def _comparable(keys: Tensor) -> list[KeyFingerprints]:
    """The fingerprints of this width; those on the meta device only for keys there."""
    return [
        fingerprints
        for (device, _, width), fingerprints in _fingerprints.items()
        if width == keys.shape[3] and (device.type == "meta") == keys.is_meta
    ]
