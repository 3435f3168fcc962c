"""Skipped decoder layers: the oracle has an identity in their place, in prefill and decode."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from engine.modes.test_training import assert_same_gradients, checkpointing, given, labels_of, trained
from helpers.contract.answers import answer
from helpers.contract.cells import CASES
from helpers.contract.modes import run_cell
from helpers.contract.oracle import Identity, as_reported, assert_close, dropped_columns
from helpers.families import FAMILIES
from helpers.models.staged import LAYERS, STAGES, Guided, Staged, model_of
from helpers.tiny import CACHE, prompt
from transformers import DynamicCache, StaticCache

import tokenprune
from tokenprune import PruningError, Random, SettingError, UnsupportedError
from tokenprune.adapters import adapter_for
from tokenprune.engine.cache.pruned import index_of
from tokenprune.sequence.masks import INDEXED, POOLED
from tokenprune.strategy import Stage, StagedStrategy


@dataclass(frozen=True)
class Skipping(Random, StagedStrategy):
    keep_ratio: float | None = 0.25
    layers: tuple[int, ...] = (2, 3)

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return ()

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        return self.layers


@dataclass(frozen=True)
class StagedAndSkipping(Staged):
    """Skips the first layer of a stage, one in the middle, and a whole stage."""

    plan: tuple[Stage, ...] = (*STAGES, Stage(4, 0.1))
    layers: tuple[int, ...] = (1, 3, 4)

    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        return self.layers


@dataclass(frozen=True)
class GuidedAndSkipping(Guided):
    def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
        return (1, 4)


@pytest.mark.parametrize("case", CASES)
def test_every_family(case: str) -> None:
    family = FAMILIES[case]
    model = family.build(n_layers=4)
    kinds = adapter_for(model).decoder.layers.kinds
    layers = tuple(i for i in range(2, 4) if kinds.index(kinds[i]) != i)
    strategy = Skipping(layers=layers[-1:])
    if {INDEXED, POOLED} & set(kinds):
        with pytest.raises(UnsupportedError, match="pass on what their indexer chose"):
            tokenprune.patch(model, strategy)
        return
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        run = run_cell(family, model, "greedy", "padded")
    whole, report = run.whole(family), handle.report
    with as_reported(model, whole["input_ids"], [report]):
        logits = run.expected(family, model, dropped_columns(whole["input_ids"], [report]))
    assert_close(run.logits, logits)


def test_skipped_layers_are_not_executed_and_cache_nothing() -> None:
    model, inputs, called = model_of(), prompt([1]), []
    for i, layer in enumerate(model.model.language_model.layers):
        layer.mlp.register_forward_hook(lambda *args, i=i: called.append(i))
    with tokenprune.patch(model, Skipping()) as handle:
        out = answer(model, inputs)
    assert called == [0, 1, 4] * len(out.logits)
    assert [layer.get_seq_length() > 0 for layer in out[CACHE].layers] == [True, True, False, False, True]
    assert "decoder layers [2, 3] skipped" in repr(handle.report)


def test_remove_leaves_nothing_behind() -> None:
    model, inputs = model_of(), prompt([1])
    plain = answer(model, inputs)
    before = [dict(vars(layer)) for layer in model.model.language_model.layers]
    names = list(model.state_dict())
    with tokenprune.patch(model, Skipping()):
        assert list(model.state_dict()) == names
        assert not torch.equal(answer(model, inputs).logits[0], plain.logits[0])
    assert [dict(vars(layer)) for layer in model.model.language_model.layers] == before
    assert torch.equal(answer(model, inputs).logits[0], plain.logits[0])


@pytest.mark.parametrize("n_images", [0, 1])
def test_a_cache_goes_on_with_the_same_layers_only(n_images: int) -> None:
    model, inputs = model_of(), prompt([n_images])
    more = {"input_ids": torch.tensor([[5]]), "attention_mask": torch.ones(1, inputs["input_ids"].shape[1] + 1)}
    with torch.no_grad():
        with tokenprune.patch(model, Skipping()):
            cache = model(**inputs, use_cache=True)[CACHE]
            model(**more, **{CACHE: cache})
            cache.crop(-1)
        with (
            tokenprune.patch(model, Skipping(layers=(2,))),
            pytest.raises(PruningError, match=r"layers \[2, 3\] skipped"),
        ):
            model(**more, **{CACHE: cache})
        with pytest.raises(PruningError, match="the model that continues it is not patched"):
            model(**more, **{CACHE: cache})
        cache.reset()
        assert index_of(cache) is None


def test_a_crop_leaves_a_static_cache_usable() -> None:
    model, inputs = model_of(), prompt([1])
    cache = StaticCache(model.config.get_text_config(), max_cache_len=64)
    if not hasattr(cache.layers[0], "crop"):
        pytest.skip("this transformers cannot crop it")
    with torch.no_grad(), tokenprune.patch(model, Skipping()):
        model(**inputs, **{CACHE: cache})
        cache.crop(-2)
    cache.reset()
    plain = model(**inputs).logits
    assert_close(model(**inputs, **{CACHE: cache}).logits.detach(), plain.detach())


def test_offloaded_caches_are_refused() -> None:
    model, cache = model_of(), DynamicCache()
    cache.offloading = True
    with tokenprune.patch(model, Skipping()), pytest.raises(PruningError, match="Generate with another cache"):
        model(**prompt([1]), **{CACHE: cache})


def identities(model: Any, layers: tuple[int, ...]) -> Any:
    for number in layers:
        model.model.language_model.layers[number] = Identity(model.model.language_model.layers[number])
    return model


@pytest.mark.parametrize("made", [lambda model: model, checkpointing], ids=["", "checkpointing"])
def test_gradients(made: Callable[[Any], Any]) -> None:
    """Skipped layers have none, and the others have those of the model with identities in their place."""
    inputs, strategy = prompt([1, 2]), Skipping(layers=(2,))
    model, twin = made(model_of().train()), identities(model_of().train(), (2,))
    with tokenprune.patch(model, strategy):
        loss = model(**given(inputs), labels=labels_of(inputs)).loss
        loss.backward()
    assert torch.equal(loss.detach(), trained(twin, Random(keep_ratio=0.25), inputs)[0])
    assert all(parameter.grad is None for parameter in model.model.language_model.layers[2].parameters())
    del model.model.language_model.layers[2], twin.model.language_model.layers[2]
    assert_same_gradients(model, twin)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Skipping(layers=(3, 2)), r"do not ascend within 0\.\.4"),
        (Skipping(layers=(2, 2)), r"do not ascend"),
        (Skipping(layers=(LAYERS,)), r"do not ascend"),
        (Skipping(layers=(0, 2)), "layer 0 determines the length of the cache"),
    ],
    ids=str,
)
def test_layers_that_cannot_be_skipped(strategy: tokenprune.Strategy, message: str) -> None:
    model = model_of()
    with pytest.raises(SettingError, match=message):
        tokenprune.patch(model, strategy)
    assert not any("forward" in vars(layer) for layer in model.model.language_model.layers)


def test_a_layer_whose_attention_is_read_cannot_be_skipped() -> None:
    @dataclass(frozen=True)
    class Blind(Guided):
        def skipped_layers(self, n_layers: int) -> tuple[int, ...]:
            return (2,)

    with pytest.raises(SettingError, match="layer 2 provides the attention that the strategy reads"):
        tokenprune.patch(model_of(), Blind())
