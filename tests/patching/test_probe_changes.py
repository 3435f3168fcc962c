"""Changes to a probed model between two forwards: one is interrupted, or modules are replaced."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.tiny import prompt, tiny_llava

import tokenprune
from tokenprune import PruningError, UnsupportedError


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
