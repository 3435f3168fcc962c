"""Probes of models with adapters, whose layers are named or which change."""

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.families import FAMILIES
from helpers.tiny import prompt, tiny_llava
from transformers import LlavaForConditionalGeneration

import tokenprune
from tokenprune import GenericAdapter, PruningError, SettingError, UnsupportedError
from tokenprune.adapters import ADAPTERS
from tokenprune.adapters.families.llava import LlavaAdapter


class OddLlava(LlavaForConditionalGeneration):
    """A class of another package, for which there is no adapter if its base class has none."""


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> Any:
    model = tiny_llava("clip")
    model.__class__ = OddLlava
    monkeypatch.delitem(ADAPTERS, "LlavaForConditionalGeneration")
    return model


def test_an_adapter_of_your_own(unknown: Any) -> None:
    with pytest.raises(UnsupportedError):
        tokenprune.probe(unknown)
    with tokenprune.probe(unknown, {"vision_attention"}, decoder_layers=[1], adapter=LlavaAdapter) as seen:
        (image,) = seen.run(**prompt([1]))
    assert image.tokens.vision_attention.received().shape == (36,)
    assert image.text_attention[1].from_last().shape == (36,)


@pytest.mark.usefixtures("unchecked")
def test_an_adapter_is_used_instead_of_the_registered_one(llava: Any) -> None:
    with pytest.raises(UnsupportedError, match="needs attention of one vision-encoder layer"):
        tokenprune.probe(llava, {"vision_attention"}, adapter=GenericAdapter)
    wrong: Any = "generic"
    with pytest.raises(SettingError, match=r"adapter='generic' is not a subclass of ModelAdapter"):
        tokenprune.probe(llava, adapter=wrong)


# How to tell a probe which decoder layers to read.


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "layers", [(0, 1), {0, 1}, range(2), iter([0, 1]), np.arange(2)], ids=lambda one: type(one).__name__
)
def test_anything_that_names_layers(layers: Iterable[int]) -> None:
    """Also iterables that can be read only once or have no truth value."""
    with tokenprune.probe(tiny_llava(), decoder_layers=layers) as seen:
        (image,) = seen.run(**prompt([1]))
    assert sorted(image.text_attention) == [0, 1]


# Changes to a probed model between two forwards: one is interrupted, or modules are replaced.


def test_text_after_an_interrupted_forward_is_not_read(llava: Any) -> None:
    """Its attention would replace that of the image's prompt."""
    inputs = prompt([1])
    with torch.no_grad(), tokenprune.probe(llava, decoder_layers=[0]) as seen:
        (image,) = seen.run(**inputs)
        hook = llava.model.language_model.layers[1].register_forward_pre_hook(interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                llava(**inputs)
        finally:
            hook.remove()
        llava(input_ids=torch.randint(2, 80, inputs["input_ids"].shape))
        (after,) = seen.images
    assert torch.equal(after.text_attention[0].from_last(), image.text_attention[0].from_last())


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_projections_that_were_replaced_meanwhile() -> None:
    """For example by an adapter, whose base layer does not return what the attention gets."""
    model: Any = tiny_llava()
    attention = model.model.language_model.layers[0].self_attn
    with tokenprune.probe(model, decoder_layers=[0]) as seen:
        seen.run(**prompt([1]))
        attention.q_proj = copy.deepcopy(attention.q_proj)
        with pytest.raises(PruningError, match=r"replaced after probe\(\). Call probe\(\) again, after get_peft_model"):
            seen.run(**prompt([1]))
    with tokenprune.probe(model, decoder_layers=[0]) as seen:
        seen.run(**prompt([1]))


def test_an_attention_that_was_exchanged_meanwhile() -> None:
    """FlashAttention gets no mask, so a layer's window would be unknown, and its attention would be read without it."""
    family = FAMILIES["gemma3"]
    model: Any = family.build()
    with tokenprune.probe(model, decoder_layers=[0]) as seen:
        seen.run(**family.prompt([1]))
        model.config.get_text_config()._attn_implementation = "flash_attention_2"
        with pytest.raises(UnsupportedError, match=r"sliding-window attention needs its own masks.*sdpa"):
            seen.run(**family.prompt([1]))
