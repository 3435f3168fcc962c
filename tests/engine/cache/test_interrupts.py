"""A call that is interrupted anywhere leaves a cache that the next call can use."""

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from engine.cache.test_rebuilt import LastSkipped
from helpers.families import FAMILIES, present
from helpers.tiny import CACHE, prompt, tiny_llava
from transformers import DynamicCache

import tokenprune
from tokenprune import FastV, FoPru, PruningError, Random, Strategy
from tokenprune.adapters import adapter_for


class Stop(BaseException):
    """Not an Exception, and unknown to torch."""


STRATEGIES = [FoPru(keep_ratio=0.25), FastV(keep_ratio=0.25, layer=1)]
ERRORS = [KeyboardInterrupt, Stop, SystemExit, RuntimeError]
TOKEN = torch.tensor([[7]])


def hooks_of(model: Any) -> list[tuple[Any, Any]]:
    """Return every hook of ours as the dict that holds it and its key."""
    return [
        (hooks, key)
        for module in model.modules()
        for hooks in (module._forward_pre_hooks, module._forward_hooks)
        for key, hook in hooks.items()
        if "tokenprune" in str(getattr(getattr(hook, "func", hook), "__module__", ""))
    ]


def interruptions(model: Any, cache: Any, call: Callable[[Any], Any]) -> Iterator[tuple[Any, bool]]:
    """Interrupt `call(cache)` in each of our hooks that it reaches, before and after what the hook does. Yield the copy
    of the cache that the call was given, and whether the hook had done its work."""
    for i, (hooks, key) in enumerate(hooks_of(model)):
        for late in (False, True):
            given, hook, stopped = copy.deepcopy(cache), hooks[key], False

            def raising(*args: Any, hook: Any = hook, late: bool = late, error: Any = ERRORS[i % 4]) -> Any:
                if late:
                    hook(*args)
                raise error

            hooks[key] = raising
            try:
                call(given)
            except ERRORS[i % 4]:
                stopped = True
            finally:
                hooks[key] = hook
            if stopped:
                yield given, late


@contextmanager
def interrupted(module: Any) -> Iterator[None]:
    """Interrupt the call in the block before it calls this module."""
    hook = module.register_forward_pre_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        hook.remove()


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def step(model: Any, cache: Any, **others: Any) -> torch.Tensor:
    return model(input_ids=TOKEN, **{CACHE: cache}, **others).logits


def in_a_thread(call: Callable[..., Any], *args: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(torch.no_grad()(call), *args).result()


def here(call: Callable[..., Any], *args: Any) -> None:
    call(*args)


@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize(
    ("strategy", "run"),
    [*((strategy, here) for strategy in STRATEGIES), (STRATEGIES[0], in_a_thread)],
    ids=["FoPru", "FastV", "FoPru in a thread"],
)
def test_an_interrupted_decode_step(strategy: Strategy, run: Any, position_ids: Any) -> None:
    model, count = tiny_llava(), 0
    with torch.no_grad(), tokenprune.patch(model, strategy, position_ids=position_ids):
        filled = model(**prompt([1]), use_cache=True)[CACHE]
        length, expected = filled.get_seq_length(), step(model, copy.deepcopy(filled))
        for cache, _ in interruptions(model, filled, lambda cache: run(step, model, cache)):
            count += 1
            assert cache.get_seq_length() - length in (0, 1)
            if cache.get_seq_length() > length:
                cache.crop(-1)
            assert cache.get_seq_length() == length
            torch.testing.assert_close(step(model, cache), expected, atol=1e-6, rtol=0)
    assert count >= 10


@pytest.mark.parametrize(
    ("strategy", "first"),
    [(STRATEGIES[0], 0), (STRATEGIES[0], 1), (STRATEGIES[1], 0), (LastSkipped(keep_ratio=0.25), 0)],
    ids=["FoPru", "FoPru later", "FastV", "LastSkipped"],
)
def test_an_interrupted_prefill(strategy: Strategy, first: int) -> None:
    """Afterwards the cache describes itself correctly: it holds what it held before (nothing, or another image), or
    also the prompt. So does a copy of it."""
    model = FAMILIES["llava-clip"].build(n_layers=4) if isinstance(strategy, LastSkipped) else tiny_llava()
    inputs, lengths = {**prompt([1]), "attention_mask": None}, set()
    with torch.no_grad(), tokenprune.patch(model, strategy):
        before = model(**prompt([1], seed=3), use_cache=True)[CACHE] if first else DynamicCache()
        empty, filled = before.get_seq_length(), copy.deepcopy(before)
        model(**inputs, **{CACHE: filled})
        full, expected = filled.get_seq_length(), step(model, filled)
        for given, late in interruptions(model, before, lambda one: model(**inputs, **{CACHE: one}, use_cache=True)):
            cache = copy.deepcopy(given) if late else given
            lengths.add(cache.get_seq_length())
            if cache.get_seq_length() == empty:
                model(**inputs, **{CACHE: cache})
            assert cache.get_seq_length() == full
            torch.testing.assert_close(step(model, cache), expected, atol=1e-6, rtol=0)
    assert lengths == {empty, full}


def test_a_prefill_that_is_interrupted_between_layers_is_refused_afterwards() -> None:
    """Such a cache holds the prompt in only some layers. With an unpatched model, the next call is silently wrong."""
    model, inputs, cache = tiny_llava(), prompt([1]), DynamicCache()
    layer = model.model.language_model.layers[1]
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        with interrupted(layer):
            model(**inputs, **{CACHE: cache}, use_cache=True)
        with pytest.raises(PruningError, match=r"interrupted.*empty cache"):
            step(model, cache)


def test_an_unpatched_model_is_not_told_of_a_prompt_that_was_never_written() -> None:
    model, cache = tiny_llava(), DynamicCache()
    with torch.no_grad():
        with tokenprune.patch(model, FoPru(keep_ratio=0.25)), interrupted(model.model.language_model.layers[0]):
            model(**prompt([1]), **{CACHE: cache}, use_cache=True)
        with pytest.raises(PruningError, match=r"lacks the prompt that an interrupted .* not patched.*an empty cache"):
            step(model, cache)


@pytest.mark.parametrize("family", present("lfm2-vl"))  # not called "name", so it runs every day
def test_what_a_layer_with_a_state_has_taken_in_is_unknown(family: str) -> None:
    """A state does not show whether it has seen the prompt, unlike the length of keys."""
    model = FAMILIES[family].build()
    cache = DynamicCache(config=model.config.get_text_config())
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.25)):
        hook = adapter_for(model).layers[-1].register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(**FAMILIES[family].prompt([1]), **{CACHE: cache}, use_cache=True)
        hook.remove()
        with pytest.raises(PruningError, match=r"interrupted.*empty cache"):
            step(model, cache)


def test_a_crop_of_what_was_there_before_an_interrupted_image() -> None:
    model, cache, text = tiny_llava(), DynamicCache(), torch.tensor([[3, 4, 5, 6, 7]])
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        model(input_ids=text, **{CACHE: cache})
        with interrupted(model.model.language_model.layers[0]):
            model(**{**prompt([1]), "attention_mask": None}, **{CACHE: cache})
        cache.crop(-2)
        assert type(cache) is DynamicCache
        expected = model(input_ids=torch.cat([text[:, :3], TOKEN], 1)).logits
        torch.testing.assert_close(step(model, cache)[:, -1], expected[:, -1])


def test_rows_that_change_places_after_an_interrupt() -> None:
    """The whole prompt is in the cache, and what is known about its rows moves with them."""
    model, inputs, cache = tiny_llava(), prompt([1, 2]), DynamicCache()
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        expected = model(**inputs, use_cache=True)[CACHE]
        with interrupted(model.model.language_model.norm):
            model(**inputs, **{CACHE: cache}, use_cache=True)
        mask = torch.nn.functional.pad(inputs["attention_mask"].flip(0), (0, 1), value=1)
        caches: list[Any] = [cache, expected]
        found = []
        for one in caches:
            one.reorder_cache(torch.tensor([1, 0]))
            found.append(model(input_ids=TOKEN.expand(2, 1), attention_mask=mask, **{CACHE: one}).logits)
    assert torch.equal(*found)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_a_report_belongs_to_its_call(strategy: Strategy) -> None:
    """Threads that share a patched model read their own reports."""
    model = tiny_llava()
    prompts = [prompt([n], seed=n) for n in (1, 2, 3, 1)]

    def asked(handle: tokenprune.PatchHandle, inputs: Any) -> list[int]:
        with torch.no_grad():
            model(**inputs)
        return [len(handle.report.images), *(len(image.stages) for image in handle.report.images)]

    with tokenprune.patch(model, strategy) as handle, ThreadPoolExecutor(4) as pool:
        first = pool.submit(asked, handle, prompts[1]).result()
        assert len(handle.report.images) == first[0] == 2  # of any thread, since this one has none of its own
        expected = [asked(handle, inputs) for inputs in prompts]
        for _ in range(15):
            assert list(pool.map(lambda inputs: asked(handle, inputs), prompts)) == expected


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_the_language_model_by_itself_after_an_interrupt(llava: Any, strategy: Strategy) -> None:
    """Its call is not mistaken for part of the interrupted one."""

    inputs, language_model = prompt([1]), llava.model.language_model
    embeds = torch.randn(*inputs["input_ids"].shape, 32)
    with torch.no_grad():
        expected = language_model(inputs_embeds=embeds).last_hidden_state
        with tokenprune.patch(llava, strategy):
            with interrupted(language_model.layers[-1]):
                llava(**inputs)
            assert torch.equal(language_model(inputs_embeds=embeds).last_hidden_state, expected)
