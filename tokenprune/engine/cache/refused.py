"""Caches that cannot be continued: those that an interrupted call has left half filled; and those that were made from
the tensors of a pruned one, and so do not know what was dropped. With these, the next tokens would be numbered as if
nothing had been dropped: a wrong answer without an error, after code that converts, stores or crops caches by hand.

A cache that holds tokens but has no index is compared with the fingerprints when it first reaches a patched model, and
again whenever its length is not one that a call has left. Tensors from another process, quantised ones, and those
written into a known static cache are caught only by an attention mask that covers more than the cache.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import Tensor

from tokenprune.adapters.conventions import new_size
from tokenprune.engine.cache.fingerprints import MOST_SLOTS, fingerprint_pruned, is_fingerprinted
from tokenprune.engine.cache.index import CacheIndex
from tokenprune.engine.cache.pruned import n_slots
from tokenprune.errors import PruningError
from tokenprune.sequence.masks import RECURRENT, LayerKinds

if TYPE_CHECKING:
    from tokenprune.adapters.base import ModelAdapter
    from tokenprune.engine.call import Forward

#: Caches that were compared, and the smallest and largest length the last call may have left; no lengths for static
#: caches, whose length may be on a GPU.
_known: WeakKeyDictionary[Any, tuple[int, ...]] = WeakKeyDictionary()


def check_not_rebuilt(cache: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise PruningError if a cache that holds tokens but has no index was made from the tensors of a pruned one."""
    length, known = cache.get_seq_length(), _known.get(cache)
    counted = isinstance(length, int)
    if known is None or (counted and known and not known[0] <= length <= known[1]):
        if is_fingerprinted(cache.layers, n_slots(cache)):
            raise _rebuilt("this cache was made from the tensors of a pruned one, and does not know what was dropped")
        _known[cache] = ()
    if not counted:
        return
    mask, most = kwargs.get("attention_mask"), length + new_size(kwargs)[1]
    _known[cache] = length, most
    if isinstance(mask, Tensor) and mask.ndim == 2 and length and mask.shape[1] > most:
        raise _rebuilt(
            f"attention_mask covers {mask.shape[1]} tokens; there are {most} so far, {length} of them in the cache, "
            f"which was made from the tensors of a pruned cache, or belongs to another prompt, or the mask is too long"
        )


def check_unmodified(cache: Any, index: CacheIndex, n_slots: int, kwargs: Mapping[str, Any]) -> None:
    """Raise PruningError for a cache of `n_slots` unless its tensors are those that pruning and later calls have left:
    the slots that `index` describes, and those appended since."""
    first = next(iter(getattr(cache, "layers", ())), None)
    described, most = index.columns.shape[1], getattr(first, MOST_SLOTS, n_slots)
    if not described <= n_slots <= most:
        raise _rebuilt(
            f"this cache holds {n_slots} tokens, and should hold {most if n_slots > most else described} or "
            f"{'fewer' if n_slots > most else 'more'}: its tensors were exchanged, or cropped by other means than "
            f"cache.crop"
        )
    rows, n_new = new_size(kwargs)
    if len(index.columns) not in (1, rows):
        raise _rebuilt(
            f"this cache holds {len(index.columns)} rows, and the call brings {rows}. Pick rows with "
            f"cache.batch_select_indices"
        )
    if first is not None:
        setattr(first, MOST_SLOTS, n_slots + n_new)


def _rebuilt(what: str) -> PruningError:
    return PruningError(
        f"{what}. Pass the cache that the model returned; copy.deepcopy, pickle and torch.save preserve what it knows."
    )


def interrupted_index(forward: Forward, adapter: ModelAdapter, skipped: Collection[int]) -> CacheIndex:
    """The index of the cache of a forward that was interrupted after every layer except those `skipped` was filled.
    Raises PruningError if it was interrupted earlier."""
    index, incoming = forward.index_after(), forward.incoming
    assert index is not None
    lengths = dict.fromkeys(range(len(adapter.layers)), index.columns.shape[1])
    if forward.stages is not None:
        lengths |= forward.stages.lengths(len(adapter.layers))
    for number in skipped:
        lengths.pop(number, None)
    check_filled(incoming.cache, lengths, adapter.decoder.layers)
    fingerprint_pruned(incoming.cache, index, incoming.padding)
    return index


def check_filled(cache: Any, lengths: Mapping[int, int], kinds: LayerKinds) -> None:
    """Raise PruningError unless every layer holds as many slots as `lengths` says. Layers that read another layer's
    keys hold none; what a layer with a state has seen is unknown."""
    for number, length in lengths.items():
        known = number < len(cache.layers) and kinds.kinds[number] not in RECURRENT
        if known and int(_own_length(cache.layers[number], length)) == length:
            continue
        raise PruningError(
            "the call that filled this cache was interrupted between decoder layers: some hold the prompt, others do "
            "not. Start again from an empty cache."
        )


def _own_length(layer: Any, of_others: int) -> int:
    """The length of a cache's layer; `of_others` if it reads other layers' keys."""
    return layer.get_seq_length() if hasattr(layer, "get_seq_length") else of_others
