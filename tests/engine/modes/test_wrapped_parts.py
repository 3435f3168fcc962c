"""Parts of a model inside wrappers that take any arguments, as torch's activation checkpointing and FSDP put around
them."""

from typing import Any

import pytest
import torch
from engine.modes.test_training import assert_same_gradients, given, labels_of
from helpers.families import FAMILIES
from helpers.tiny import prompt, tiny_llava
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

import tokenprune
from tokenprune import DART, FastV, FlowCut, FoPru, PixelPrune, PruningError, Random, Strategy, ToMe

STRATEGIES = [ToMe(keep_ratio=0.5), FlowCut(keep_ratio=0.5), FoPru(keep_ratio=0.25), FastV(keep_ratio=0.25, layer=1)]


def wrapped(model: Any, kind: str) -> Any:
    """Return the model with every module of a class so named in a wrapper."""
    apply_activation_checkpointing(model, check_fn=lambda module: type(module).__name__.endswith(kind))
    return model


@pytest.mark.parametrize("first", ["patch", "wrap"])
@pytest.mark.parametrize(
    ("kind", "strategy"),
    [
        *((kind, strategy) for kind in ("EncoderLayer", "DecoderLayer") for strategy in STRATEGIES),
        ("VisionModel", Random(keep_ratio=0.25)),  # reads the pixels in the tower's call
    ],
)
def test_logits(kind: str, strategy: Strategy, first: str) -> None:
    model, inputs = tiny_llava(), prompt([1, 2])
    with torch.no_grad(), tokenprune.patch(model, strategy):
        expected = model(**inputs).logits
    if first == "patch":
        tokenprune.patch(model, strategy)
    wrapped(model, kind)
    if first == "wrap":
        tokenprune.patch(model, strategy)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize("kind", ["EncoderLayer", "DecoderLayer"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_of_a_model_that_is_patched_after_it_was_wrapped(strategy: Strategy, kind: str) -> None:
    """The wrapper stores the layer's inputs after pruning. Without a cache: it would be filled twice, patched or
    not."""
    model, plain, inputs = wrapped(tiny_llava().train(), kind), tiny_llava().train(), prompt([1, 2])
    for one in (model, plain):
        with tokenprune.patch(one, strategy):
            one(**given(inputs), labels=labels_of(inputs), use_cache=False).loss.backward()
    assert_same_gradients(model, plain)


@pytest.mark.parametrize(
    ("family", "first", "advice"),
    [
        ("llava-clip", "patch", r"Switch it off, or call patch\(\) again\."),
        ("internvl", "patch", r"Switch it off\."),
        ("internvl", "wrap", r"Switch it off\."),  # its layers' attention gets the mask
    ],
)
def test_layers_of_the_tower_whose_hooks_would_run_again(family: str, first: str, advice: str) -> None:
    """Outside the tower's call, they would not know about padding, or about merged tokens."""
    model, inputs = FAMILIES[family].build().train(), FAMILIES[family].prompt([1, 2])
    kind = "EncoderLayer" if family == "llava-clip" else "VisionLayer"
    if first == "patch":
        tokenprune.patch(model, ToMe(keep_ratio=0.5))
    wrapped(model, kind)
    if first == "wrap":
        tokenprune.patch(model, ToMe(keep_ratio=0.5))
    with pytest.raises(PruningError, match=advice):
        model(**inputs, use_cache=False)
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()


@pytest.mark.parametrize("strategy", [FastV(keep_ratio=0.25, layer=1), DART(keep_ratio=0.25, layer=1)])
def test_decoder_layers_that_are_wrapped_after_the_patch(strategy: Strategy) -> None:
    """The backward pass would run them on all tokens."""
    model, inputs = tiny_llava().train(), prompt([1, 2])
    tokenprune.patch(model, strategy)
    wrapped(model, "DecoderLayer")
    with pytest.raises(PruningError, match=r"checkpointing of torch runs decoder.*Switch it off, call patch\(\) again"):
        model(**inputs, use_cache=False)
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()
    tokenprune.patch(model, strategy)
    model(**given(inputs), labels=labels_of(inputs), use_cache=False).loss.backward()


def test_a_whole_language_model_that_runs_again() -> None:
    """The wrapper stores inputs pruned before it, but the backward pass does not know about pruning inside it."""
    model, plain, inputs = wrapped(tiny_llava().train(), "LlamaModel"), tiny_llava().train(), prompt([1, 2])
    for one in (model, plain):
        with tokenprune.patch(one, FoPru(keep_ratio=0.25)):
            one(**given(inputs), labels=labels_of(inputs), use_cache=False).loss.backward()
    assert_same_gradients(model, plain)
    with tokenprune.patch(model, FastV(keep_ratio=0.25, layer=1)):
        with torch.no_grad():
            model(**inputs, use_cache=False)
        with pytest.raises(PruningError, match=r"FastV prunes inside .* all of it again.* around the decoder layers"):
            model(**inputs, use_cache=False)


@pytest.mark.parametrize("strategy", [FoPru(keep_ratio=0.25), FastV(keep_ratio=0.25, layer=1)])
def test_a_language_model_that_was_wrapped_after_it_was_patched(strategy: Strategy) -> None:
    model, inputs = tiny_llava().train(), prompt([1, 2])
    with tokenprune.patch(model, strategy):
        wrapped(model, "LlamaModel")
        with torch.no_grad():
            model(**inputs, use_cache=False)
        with pytest.raises(PruningError, match=r"around the language model after patch.*Call patch\(\) again"):
            model(**inputs, use_cache=False)


def test_a_wrapped_language_model_with_windows() -> None:
    """The settings of its masks are read inside the wrapper."""
    family = FAMILIES["gemma3"]
    model, inputs = family.build(), family.prompt([1])
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.25)):
        expected = model(**inputs).logits
    with torch.no_grad(), tokenprune.patch(wrapped(model, "Gemma3TextModel"), FoPru(keep_ratio=0.25)):
        assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize(
    ("case", "strategy"), [("llava-clip", ToMe(keep_ratio=0.3)), ("qwen2-vl", PixelPrune(keep_ratio=0.5))]
)
def test_a_whole_tower_that_runs_again(case: str, strategy: Strategy) -> None:
    family, kind = FAMILIES[case], "VisionModel" if case == "llava-clip" else "VisionTransformerPretrainedModel"
    model, plain, inputs = family.build().train(), family.build().train(), family.prompt([1, 2])
    for one in (model, plain):
        with tokenprune.patch(one, strategy):
            if one is model:
                wrapped(model, kind)
            one(**given(inputs), labels=labels_of(inputs), use_cache=False).loss.backward()
    assert_same_gradients(model, plain)
    with tokenprune.patch(model, strategy):
        with torch.no_grad():
            model(**inputs)
        with pytest.raises(PruningError, match=r"around all of it before patch\(\).*around the encoder layers"):
            model(**inputs)
