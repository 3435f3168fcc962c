"""Caches whose tensors are exchanged between calls."""

import copy
from typing import Any

import pytest
import torch
from engine.cache.test_rebuilt import Pairs, pairs_of, pruned, step
from helpers.families.base import CACHE
from helpers.tiny import prompt, tiny_llava

import tokenprune
from tokenprune import FoPru, PruningError


def write(cache: Any, pairs: Pairs) -> None:
    for layer, (keys, values) in zip(cache.layers, pairs, strict=True):
        layer.keys, layer.values = keys, values


def test_written_into_a_cache_that_is_known() -> None:
    model = tiny_llava()
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        pairs = pairs_of(pruned(model, [1]))
        cache = model(**prompt([0]), use_cache=True)[CACHE]
        for _ in range(2):
            step(model, cache)
        write(cache, pairs)
        for _ in range(2):
            with pytest.raises(PruningError, match="made from the tensors of a pruned one"):
                step(model, cache)


@pytest.mark.parametrize("n_more", [0, 2])
def test_other_tensors_in_a_pruned_cache(n_more: int) -> None:
    """Either those of the same prompt unpruned, or fewer than the pruned ones."""
    model = tiny_llava()
    with torch.no_grad():
        unpruned = pairs_of(model(**prompt([1]), use_cache=True)[CACHE])
        with tokenprune.patch(model, FoPru(keep_ratio=0.25)):
            for pairs in (unpruned, [(keys[:, :, :9], values[:, :, :9]) for keys, values in unpruned]):
                cache = pruned(model, [1])
                for _ in range(n_more):
                    step(model, cache)
                for one in (cache, copy.deepcopy(cache)):
                    write(one, pairs)
                    with pytest.raises(PruningError, match="its tensors were exchanged"):
                        step(model, one)


def test_a_layer_that_was_cropped_by_hand() -> None:
    """If it is not shorter than the pruned prompt, this equals a call of crop."""
    model = tiny_llava()
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        caches = [pruned(model, [1]) for _ in range(2)]
        for cache in caches:
            for _ in range(3):
                step(model, cache)
        caches[0].crop(-2)
        write(caches[1], [(keys[:, :, :-2], values[:, :, :-2]) for keys, values in pairs_of(caches[1])])
        assert torch.equal(step(model, caches[0]), step(model, caches[1]))


def test_rows_that_were_picked_by_hand() -> None:
    """They are refused, because another row's padding would be read."""
    model, ids = tiny_llava(), torch.tensor([[7]])
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        cache, expected = (model(**prompt([1, 2]), use_cache=True)[CACHE] for _ in range(2))
        write(cache, [(keys[1:], values[1:]) for keys, values in pairs_of(cache)])
        with pytest.raises(PruningError, match="holds 2 rows, and the call brings 1"):
            step(model, cache)
        both = model(input_ids=ids.repeat(2, 1), **{CACHE: copy.deepcopy(expected)}).logits
        expected.batch_select_indices(torch.tensor([1]))
        torch.testing.assert_close(step(model, expected), both[1:], atol=2e-6, rtol=0)


def test_a_shallow_copy_is_the_same_cache() -> None:
    model = tiny_llava()
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        cache, expected = pruned(model, [1]), pruned(model, [1])
        twin = copy.copy(cache)
        for one in (cache, cache, twin, cache):
            assert torch.equal(step(model, one), step(model, expected))
