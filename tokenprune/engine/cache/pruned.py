"""Tracks the logical and the physical length of a pruned KV cache.

After pruning, a cache holds fewer slots (its physical length) than the tokens it stands for (its logical length).
`generate`, chat code and decode loops read the length of a cache to number the next tokens: they need the logical one.
Attention needs the physical one. A pruned cache reports the logical length, and carries a CacheIndex that records which
token each slot holds; the language model gets a view of it that reports the physical length. Nothing is switched back
and forth, so an interrupted call leaves the cache unchanged.

A cache is made a pruned one by exchanging its class, in place. A wrapper or a new object in its stead would be lost:
the caller, `generate` and beams hold the cache that they passed, and go on with it. It would not pass transformers'
isinstance checks either. With the attributes left as they are, the view can share them, and a model that is not patched
meets `update`, which refuses; otherwise it would attend to what is left as if it were everything.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any
from weakref import ref

from torch import Tensor

from tokenprune.engine.cache.index import CacheIndex
from tokenprune.errors import PruningError


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
        """Refuse a model that is not patched. So do all other methods that a layer may call first to read or write its
        part: a state that has taken in tokens cannot be restored."""
        interrupted = "lacks the prompt that an interrupted call was to prune into it"
        raise PruningError(
            f"this cache {interrupted if index_of(self) is None else 'holds a pruned prompt'}, and the model that "
            "continues it is not patched. Patch it with tokenprune.patch(model, ...), or start again from an empty "
            "cache."
        )

    get_conv_state = get_recurrent_state = update_conv_state = update_recurrent_state = update_indexer = update

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens: a negative number of them, or down to a positive logical length. 0 removes none, and
        frees what layers with a window or a state have recorded in order to be cropped."""
        settle(self)
        index = index_of(self)
        if index is None:
            return self.crop(tokens_to_remove)  # its own class's method, after an interrupted call has left it unpruned
        slots = n_slots(self)
        if tokens_to_remove > 0:
            tokens_to_remove -= slots + index.n_dropped
            if tokens_to_remove >= 0:  # it is no longer than that
                return None
        if tokens_to_remove == 0 and not hasattr(self, "activate_past_recording"):  # then 0 was a length
            return None
        cut = index.columns.shape[1] - (slots + tokens_to_remove)
        index = index.without_tail(cut) if cut > 0 else index
        view = physical_view(self)
        view.__dict__ = {
            **vars(self),
            "layers": [layer for i, layer in enumerate(self.layers) if i not in index.skipped],
        }
        view.crop(tokens_to_remove)
        self._index = index
        return None

    def reset(self) -> None:
        super().reset()  # type: ignore[misc]
        _unprune(self)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """For copies and pickles: the class is made at run time."""
        settle(self)  # after an interrupted call, it may not be a pruned one any more
        return _rebuild, (getattr(self, "_unpruned_class", type(self)), dict(vars(self)))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._pick("reorder_cache", beam_idx, lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._pick("batch_repeat_interleave", repeats, lambda rows: rows.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._pick("batch_select_indices", indices, lambda rows: rows[indices])

    def _pick(self, method: str, argument: Any, pick: Callable[[Tensor], Tensor]) -> None:
        """Pick rows with a method of the cache's own class, and the same rows of the index."""
        settle(self)
        getattr(getattr(self, "_unpruned_class", type(self)), method)(self, argument)
        index = index_of(self)
        if index is not None:
            self._index = index.with_rows(pick)


class Views:
    """The view that the language model of each thread may be using."""

    def __init__(self) -> None:
        self._views: dict[int, ref[Any]] = {}
        self._withdrawn = False

    def add(self, view: Any) -> None:
        self._views[get_ident()] = ref(view)
        if self._withdrawn:
            self.withdraw()

    def withdraw(self) -> None:
        """Make the views in use, and any added from now on, pruned caches, which an unpatched model refuses. The hook
        that would return the cache in place of its view is gone with the patch, and a view hides what was dropped."""
        self._withdrawn = True
        for reference in list(self._views.values()):  # a copy: other threads add to them
            view: Any = reference()
            if getattr(view, "_index", None) is not None:
                view.__class__ = _pruned_classes[view._unpruned_class]


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
    """Make `cache` a pruned one, which `index` describes as soon as the language model has filled it. `finish` makes
    the final index, and raises PruningError while the forward is incomplete."""
    before = index_of(cache)
    set_index(cache, index)
    cache._unfinished = before, finish


def settle(cache: Any) -> None:
    """Finish or undo what an interrupted call has left of a cache.

    Raises PruningError for a cache that only some layers have filled.
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
    """The same cache as the language model must see it: of its own class, with its physical length."""
    if getattr(cache, "_index", None) is None:
        return cache
    view = object.__new__(cache._unpruned_class)
    view.__dict__ = vars(cache)  # the same dict: what is written through one is in the other
    return view


def pass_view(kwargs: dict[str, Any], cache: Any, views: Views) -> Any:
    """Replace a cache in the language model's arguments by its physical view, add the view to `views`, and return
    it."""
    view = physical_view(cache)
    if view is not cache:
        views.add(view)
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


def is_static(cache: Any) -> bool:
    """Whether a cache is allocated at its full length from the start."""
    return bool(getattr(cache, "is_compileable", False))


def span(cache: Any, n_slots: int, layer: int, n_queries: int) -> tuple[int, int]:
    """How many slots a layer attends to when `n_queries` are appended to `n_slots`, and the first of them."""
    return (n_slots + n_queries, 0) if cache is None else cache.get_mask_sizes(n_queries, layer)


def prompt_slots(cache: Any) -> int | None:
    """The number of prompt slots in a cache that keeps the prompt and a window of the answer; None for any other kind
    of cache, and until the prompt is complete."""
    layers = (layer for layer in getattr(cache, "layers", ()) if hasattr(layer, "prefill_cumulative_length"))
    layer = next(layers, None)
    if layer is None or layer.prefill_length is None or layer.prefill_cumulative_length < layer.prefill_length:
        return None
    return int(layer.prefill_length)
