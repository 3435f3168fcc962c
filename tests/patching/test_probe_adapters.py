"""`tokenprune.probe` with a user's own adapter class."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.tiny import prompt, tiny_llava
from transformers import LlavaForConditionalGeneration

import tokenprune
from tokenprune import GenericAdapter, SettingError, UnsupportedError
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
