"""Layers that get their hidden states as a keyword argument are pruned like others."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from typing import Any

import torch
from helpers.families import FAMILIES
from helpers.tiny import prompt, tiny_llava
from torch import Tensor, nn

import tokenprune
from tokenprune import FastV, Strategy
from tokenprune.engine.stages.skipping import SkippedLayer


def call_by_name(layers: Iterable[Any]) -> None:
    """Make every layer's `__call__` pass all arguments by keyword, outside of all hooks."""
    for layer in layers:
        base = type(layer)
        names = list(signature(base.forward).parameters)[1:]

        def call(self: Any, *args: Any, base: Any = base, names: Any = names, **kwargs: Any) -> Any:
            return base.__call__(self, **dict(zip(names, args, strict=False)), **kwargs)

        layer.__class__ = type(base.__name__, (base,), {"__call__": call})


def pruned(model: Any, strategy: Strategy, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        logits = model(**inputs).logits
    assert handle.report.images[0].n_left < handle.report.images[0].n_visual
    return logits


def test_layers_of_a_decoder() -> None:
    strategy = FastV(layer=1)
    expected = pruned(tiny_llava(), strategy, prompt([1]))
    model = tiny_llava()
    call_by_name(model.model.language_model.layers)
    assert torch.equal(pruned(model, strategy, prompt([1])), expected)


def test_layers_of_a_tower_that_takes_all_images_in_one_row() -> None:
    family, strategy = FAMILIES["qwen2-vl"], tokenprune.PixelPrune(keep_ratio=0.5)
    inputs = family.prompt([1])
    expected = pruned(family.build(), strategy, inputs)
    model = family.build()
    call_by_name(model.model.visual.blocks)
    assert torch.equal(pruned(model, strategy, inputs), expected)


def test_a_skipped_layer_hands_on_what_it_is_given_by_name() -> None:
    layer, states = nn.Identity(), torch.ones(1, 2, 3)
    override = SkippedLayer(layer).install()
    assert layer(hidden_states=states, attention_mask=None) is states
    override.remove()
    assert layer(states) is states
