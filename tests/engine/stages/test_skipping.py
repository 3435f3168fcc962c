"""Skipped decoder layers: the oracle has an identity in their place, in prefill and decode."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from engine.modes.test_training import assert_same_gradients, checkpointing, given, labels_of, trained
from helpers.contract.answers import answer
from helpers.contract.cells import CASES
from helpers.contract.modes import MODES, STEPS, run_cell
from helpers.contract.oracle import Identity, as_reported, assert_close, dropped_columns
from helpers.families import FAMILIES
from helpers.models.staged import FAMILY, LAYERS, STAGES, Guided, Staged, expected, model_of
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


def assert_run(model: Any, run: Any, report: tokenprune.Report) -> None:
    """Check that the logits are those of a model with identities in place of the skipped layers."""
    assert report.skipped
    ids = torch.cat([run.inputs["input_ids"], run.answers], 1)
    real = torch.cat([run.inputs["attention_mask"], torch.ones_like(run.answers)], 1)
    logits = expected(model, ids, real, run.inputs["pixel_values"], [report])
    assert_close(run.logits, logits[:, -STEPS - 1 : -1])


@pytest.mark.parametrize("strategy", [Skipping(), StagedAndSkipping(), StagedAndSkipping(ragged=True)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: str, strategy: tokenprune.Strategy) -> None:
    model, per_row = model_of("eager" if mode == "loop" else "sdpa"), [1, 1]
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        run = MODES[mode](FAMILY, model, prompt(per_row, seed=5), per_row)
    assert_run(model, run, handle.report)


@pytest.mark.parametrize("mode", ["greedy", "static"])
def test_stages_that_read_attention(mode: str) -> None:
    """The stages at 1 and 3 read layers 0 and 2; layer 1, where a stage begins, is skipped."""
    model, per_row = model_of(), [1, 2]
    with torch.no_grad(), tokenprune.patch(model, GuidedAndSkipping()) as handle:
        run = MODES[mode](FAMILY, model, prompt(per_row, seed=5), per_row)
    assert_run(model, run, handle.report)


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


def test_skipping_none_is_bitwise_the_unskipped_strategy() -> None:
    model, inputs = model_of(), prompt([1, 2])
    with tokenprune.patch(model, Random(keep_ratio=0.25)):
        plain = answer(model, inputs)
    with tokenprune.patch(model, Skipping(layers=())):
        again = answer(model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(plain.logits, again.logits, strict=True))


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


@pytest.mark.parametrize("keep_ratio", [0.25, 1.0])
@pytest.mark.parametrize("first_images", [0, 1])
def test_a_conversation(keep_ratio: float, first_images: int) -> None:
    """Text or an image first, more turns with the same cache, a crop, and reordered rows."""
    model = model_of()
    first, second = (prompt([n] * 2, texts=[4, 4], seed=seed) for n, seed in ((first_images, 5), (1, 6)))
    reports, cache, ids = [], None, first["input_ids"][:, :0]
    with torch.no_grad(), tokenprune.patch(model, Skipping(keep_ratio=keep_ratio)) as handle:
        for turn in (first, second):
            ids = torch.cat([ids, turn["input_ids"]], 1)
            given = {**turn, "attention_mask": torch.ones_like(ids)}
            cache = model(**given, **{CACHE: cache}, use_cache=True)[CACHE]
            reports += [handle.report] if "pixel_values" in turn else []
        cache.crop(-3)
        cache.reorder_cache(torch.tensor([1, 0]))
        new = torch.tensor([[5, 7], [9, 11]])
        ids = torch.cat([ids[:, :-3], new], 1)
        turn = {"input_ids": new.flip(0), "attention_mask": torch.ones_like(ids)}
        logits = model(**turn, **{CACHE: cache}).logits.flip(0)
    images = torch.stack([turn["pixel_values"] for turn in (first, second) if "pixel_values" in turn], 1)
    whole = expected(model, ids, torch.ones_like(ids), images.flatten(0, 1), reports)
    assert_close(logits, whole[:, -2:])


def test_beams() -> None:
    model, inputs = model_of(), prompt([1, 1], texts=[4, 4], seed=5)
    search = {"num_beams": 3, "num_return_sequences": 3, "do_sample": False, "max_new_tokens": 6}
    with torch.no_grad(), tokenprune.patch(model, Skipping()):
        cached, uncached = (model.generate(**inputs, **search, use_cache=use) for use in (True, False))
    assert torch.equal(cached, uncached)


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
