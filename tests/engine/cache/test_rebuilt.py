"""A cache that holds a pruned cache's tensors without its index is refused; any other cache is not."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close
from helpers.families import FAMILIES
from helpers.simulated.pretended import Elsewhere, Pretended, moved
from helpers.tiny import CACHE, prompt, tiny_llava
from transformers import DynamicCache, StaticCache

import tokenprune
from tokenprune import PAR, FastV, FoPru, Grid, PruningError, Strategy

Pairs = list[tuple[torch.Tensor, torch.Tensor]]


class LastSkipped(PAR):
    """Skips the last decoder layer, so that its cache layer is empty."""

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        return (n_layers - 1,)


STRATEGIES = {
    "before": FoPru(keep_ratio=0.25),
    "inside": FastV(keep_ratio=0.25, layer=1),
    "skipping": LastSkipped(keep_ratio=0.25),
}
REFUSED = "made from the tensors of a pruned one"


def pairs_of(cache: Any) -> Pairs:
    """Return the tensors of all layers that are not empty."""
    return [(layer.keys, layer.values) for layer in cache.layers if layer.keys is not None]


def saved(pairs: Pairs) -> Pairs:
    buffer = io.BytesIO()
    torch.save(pairs, buffer)
    buffer.seek(0)
    return torch.load(buffer)


#: Offloading needs streams, which a CUDA build of torch has only with a driver.
HAS_STREAMS = torch.version.cuda is None or torch.cuda.is_available()
#: What can happen to tensors on the way from one cache to another.
TO_TENSORS: dict[str, Callable[[Pairs], Pairs]] = {
    "same": lambda pairs: pairs,
    "cloned": lambda pairs: [(keys.clone(), values.clone()) for keys, values in pairs],
    "saved": saved,
    "cast": lambda pairs: [(keys.bfloat16(), values.bfloat16()) for keys, values in pairs],
    "offloaded": lambda pairs: pairs_of(DynamicCache(pairs, offloading=True)),
    "last row": lambda pairs: [(keys[-1:], values[-1:]) for keys, values in pairs],
    "twice": lambda pairs: [(keys.repeat(2, 1, 1, 1), values.repeat(2, 1, 1, 1)) for keys, values in pairs],
    "text cropped": lambda pairs: [(keys[:, :, :-2], values[:, :, :-2]) for keys, values in pairs],
}


def static(model: Any, pairs: Pairs) -> StaticCache:
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=96)
    for number, (keys, values) in enumerate(pairs):
        cache.update(keys, values, number)
    return cache


def step(model: Any, cache: Any, **others: Any) -> torch.Tensor:
    rows = cache.layers[0].keys.shape[0]
    return model(input_ids=torch.full((rows, 1), 7), **{CACHE: cache}, **others).logits


def pruned(model: Any, per_row: list[int]) -> Any:
    return model(**prompt(per_row), use_cache=True)[CACHE]


@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize("per_row", [[1], [1, 2], [0, 1]], ids=str)
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_rebuilt_cache_is_refused(name: str, per_row: list[int], position_ids: Any) -> None:
    model = tiny_llava() if name != "skipping" else FAMILIES["llava-clip"].build(n_layers=4)
    with torch.no_grad(), tokenprune.patch(model, STRATEGIES[name], position_ids=position_ids):
        cache = pruned(model, per_row)
        for change in [change for name, change in TO_TENSORS.items() if HAS_STREAMS or name != "offloaded"]:
            for rebuilt in (DynamicCache(change(pairs_of(cache))), static(model, change(pairs_of(cache)))):
                for _ in range(2):  # it is refused every time
                    with pytest.raises(PruningError, match=REFUSED):
                        step(model, rebuilt)
        assert step(model, copy.deepcopy(cache)).isfinite().all()


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("ids", ["none", "slots", "columns"])
def test_whatever_comes_with_it(with_mask: bool, ids: str) -> None:
    model = tiny_llava()
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        cache = pruned(model, [1])
        rebuilt = DynamicCache(pairs_of(cache))
        n_slots, n_columns = rebuilt.get_seq_length(), cache.get_seq_length()
        assert (n_slots, n_columns) == (15, 42)
        given: dict[str, Any] = {"attention_mask": torch.ones(1, n_slots + 1).long()} if with_mask else {}
        if ids != "none":
            given["position_ids"] = torch.tensor([[n_slots if ids == "slots" else n_columns]])
        with pytest.raises(PruningError, match=REFUSED):
            step(model, rebuilt, **given)


def test_with_an_image() -> None:
    model, inputs = tiny_llava(), prompt([1])
    del inputs["attention_mask"]
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        rebuilt = DynamicCache(pairs_of(pruned(model, [1])))
        with pytest.raises(PruningError, match=REFUSED):
            model(**inputs, **{CACHE: rebuilt})


def test_after_other_text_and_under_another_patch() -> None:
    """It does not matter how a cache was pruned, or what was appended since."""
    model = tiny_llava()
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        cache = pruned(model, [1])
        cache.crop(-2)
        step(model, cache)
        pairs = pairs_of(cache)
    with torch.no_grad(), tokenprune.patch(model, Grid(keep=4)), pytest.raises(PruningError, match=REFUSED):
        step(model, DynamicCache(pairs))


def test_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call filled the cache and was interrupted before it returned."""
    model, cache = tiny_llava(), DynamicCache()
    norm = model.model.language_model.norm
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        monkeypatch.setattr(norm, "forward", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            model(**prompt([1], seed=8), **{CACHE: cache}, use_cache=True)
        monkeypatch.undo()
        step(model, cache)
        with pytest.raises(PruningError, match=REFUSED):
            step(model, DynamicCache(pairs_of(cache)))


def test_from_elsewhere_only_a_mask_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llava()
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        cache = pruned(model, [1])
        rebuilt = DynamicCache(pairs_of(cache))
        monkeypatch.setattr("tokenprune.engine.cache.fingerprints._fingerprints", {})  # as in another process
        mask = torch.ones(1, cache.get_seq_length() + 1).long()
        with pytest.raises(
            PruningError, match="covers 43 tokens; there are 16 so far, 15 of them in the cache, which was made from"
        ):
            step(model, rebuilt, attention_mask=mask)


def equal_to_unpatched(model: Any, cache: Any, strategy: Strategy, position_ids: Any = "original") -> None:
    """Check that a patched model continues the cache like an unpatched one."""
    with torch.no_grad():
        expected = step(model, copy.deepcopy(cache))
        with tokenprune.patch(model, strategy, position_ids=position_ids):
            assert_close(step(model, cache), expected)


@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize("per_row", [[1], [1, 2], [0, 1], [0]], ids=str)
@pytest.mark.parametrize("strategy", [STRATEGIES["before"], STRATEGIES["inside"]], ids=["before", "inside"])
def test_an_unpruned_cache_of_the_same_prompt(strategy: Strategy, per_row: list[int], position_ids: Any) -> None:
    model = tiny_llava()
    with torch.no_grad():
        unpruned = model(**prompt(per_row), use_cache=True)[CACHE]
        with tokenprune.patch(model, strategy, position_ids=position_ids):
            pruned(model, per_row)
    equal_to_unpatched(model, DynamicCache(pairs_of(unpruned)), strategy, position_ids)
    equal_to_unpatched(model, static(model, pairs_of(unpruned)), strategy, position_ids)


def test_an_image_of_one_colour() -> None:
    """With compact IDs, its tokens hardly differ except in their position."""
    model, inputs = tiny_llava(), prompt([1])
    inputs["pixel_values"][:] = 1.0
    with torch.no_grad():
        unpruned = model(**inputs, use_cache=True)[CACHE]
        with tokenprune.patch(model, FoPru(keep_ratio=0.25), position_ids="compact"):
            model(**inputs, use_cache=True)
    equal_to_unpatched(model, unpruned, FoPru(keep_ratio=0.25), "compact")


def test_text_of_a_batch_in_which_another_row_was_pruned() -> None:
    """Its slots only moved, together with the padding before them."""
    model, inputs = tiny_llava(), prompt([0, 1])
    n_real = int(inputs["attention_mask"][0].sum())
    with torch.no_grad(), tokenprune.patch(model, Grid(keep=4)):
        cache = model.generate(**inputs, max_new_tokens=1, return_dict_in_generate=True)[CACHE]
        rows = [(keys[:1], values[:1]) for keys, values in pairs_of(cache)]
        assert cache.layers[0].keys.shape[2] > n_real
        assert step(model, DynamicCache(rows)).isfinite().all()


def test_what_was_cached_before_the_image() -> None:
    model = tiny_llava()
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        pairs = [(keys[:, :, :3], values[:, :, :3]) for keys, values in pairs_of(pruned(model, [1]))]
    equal_to_unpatched(model, DynamicCache(pairs), FoPru(keep_ratio=0.25))


def test_a_cache_of_another_model() -> None:
    one, other = tiny_llava(), tiny_llava(seed=3)
    with torch.no_grad(), tokenprune.patch(one, FoPru(keep_ratio=0.25)):
        pruned(one, [1])
        cache = other(**prompt([1]), use_cache=True)[CACHE]
        assert step(one, cache).isfinite().all()


def test_it_waits_once_for_each_cache() -> None:
    model = FAMILIES["llava-clip"].build(n_layers=4)
    inputs = {name: Elsewhere(tensor) for name, tensor in prompt([1]).items()}
    text = {"input_ids": Elsewhere(torch.tensor([[3, 4, 5]]))}
    waits = []
    with moved(model), torch.no_grad(), tokenprune.patch(model, Grid(keep=4)):
        with Pretended():
            model(**inputs, use_cache=True)
        cache = None
        for _ in range(4):
            with Pretended() as done:
                cache = model(**text, **({} if cache is None else {CACHE: cache}), use_cache=True)[CACHE]
            waits.append(len(done.ours))
    assert waits == [0, 1, 0, 0]


def test_as_many_as_it_says_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    model, n = tiny_llava(), 32
    monkeypatch.setattr("tokenprune.engine.cache.fingerprints._fingerprints", {})
    monkeypatch.setattr("tokenprune.engine.cache.fingerprints.N_FINGERPRINTS", n)
    with torch.no_grad(), tokenprune.patch(model, Grid(keep=4)):
        rebuilt = [DynamicCache(pairs_of(pruned(model, [1]))) for _ in range(2)]
        for rows in (n - 2, 1):
            one = prompt([1], seed=9)
            model(**{name: tensor.repeat_interleave(rows, 0) for name, tensor in one.items()}, use_cache=True)
            with pytest.raises(PruningError, match=REFUSED):
                step(model, rebuilt[0])
        model(**one, use_cache=True)
        assert step(model, rebuilt[0]).isfinite().all()


def test_candidates_of_another_model_are_not_compared_again() -> None:
    """Assisted decoding crops rejected tokens."""
    model, text = FAMILIES["llava-clip"].build(n_layers=4), Elsewhere(torch.tensor([[3, 4, 5]]))
    with moved(model), torch.no_grad(), tokenprune.patch(model, Grid(keep=4)):
        with Pretended():
            model(**{name: Elsewhere(tensor) for name, tensor in prompt([1]).items()}, use_cache=True)
            cache = model(input_ids=text, use_cache=True)[CACHE]
            model(input_ids=text, **{CACHE: cache})
        for _ in range(2):
            with Pretended() as done:
                cache.crop(-2)
                model(input_ids=text, **{CACHE: cache})
            assert not done.ours


def test_compact_tensors_of_one_row_are_right_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are numbered like a cache without an index. This is a way out if the cache itself cannot be passed on."""
    model = tiny_llava()
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25), position_ids="compact"):
        cache = pruned(model, [1])
        rebuilt = DynamicCache(saved(pairs_of(cache)))
        monkeypatch.setattr("tokenprune.engine.cache.fingerprints._fingerprints", {})  # as in another process
        for _ in range(2):
            assert_close(step(model, rebuilt), step(model, cache))
