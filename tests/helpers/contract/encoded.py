"""What the tower of an unpatched model computes: its attention, its features, and which patches these are made of."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from helpers.families import COMPACT_ONLY, FAMILIES, Family
from tokenprune.adapters import ModelAdapter


def family_of(name: str) -> Family:
    return COMPACT_ONLY[name] if name in COMPACT_ONLY else FAMILIES[name]


@cache
def model_of(name: str) -> Any:
    return family_of(name).build("eager")


def inputs_of(name: str, kind: str) -> dict[str, Any]:
    """Return images of different sizes or two videos, with more of them in one row of the batch than in the other."""
    family = family_of(name)
    if name in COMPACT_ONLY:  # no padding
        return family.prompt([2]) if kind == "image" else family.prompt([0], videos_per_row=[2])
    return family.prompt([2, 1]) if kind == "image" else family.prompt([0, 0], videos_per_row=[1, 1])


def encoded(adapter: ModelAdapter, inputs: dict[str, Any], kind: str) -> Tensor:
    """Return the features of all visual tokens of a kind."""
    (modality,) = (one for one in adapter.modalities if one.name == kind)
    encode = getattr(adapter.core, modality.function)
    pixels, *others = signature(encode).parameters
    given = {pixels: inputs[modality.pixels], **{name: inputs[name] for name in others if name in inputs}}
    output = encode(**given).pooler_output
    return torch.cat([image.reshape(-1, image.shape[-1]) for image in output])


@contextmanager
def softmaxes(module: Any) -> Iterator[list[Tensor]]:
    """Yield a list of what every softmax returns within calls of a module."""
    found: list[Tensor] = []
    original, code = functional.softmax, sys.modules[type(module).__module__]
    places: list[Any] = [functional, getattr(code, "F", functional)]  # helpers/families/ties.py exchanges F

    def recording(*args: Any, **kwargs: Any) -> Tensor:
        found.append(original(*args, **kwargs))
        return found[-1]

    def start(*_: Any) -> None:
        for place in places:
            place.softmax = recording

    def stop(*_: Any) -> None:
        for place in places:
            place.softmax = original

    hooks = [module.register_forward_pre_hook(start), module.register_forward_hook(stop)]
    try:
        yield found
    finally:
        stop()
        for hook in hooks:
            hook.remove()


def patches_of_tokens(adapter: ModelAdapter, inputs: dict[str, Any], kind: str) -> Tensor:
    """Return (tokens, patches) bool: of which patches each visual token is made after the last layer that it sees."""
    for layer in (-1, adapter.encoder_layer(None)):
        rows: list[Tensor] = []

        def restart(module: Any, args: Any, output: Any, rows: list[Tensor] = rows) -> Any:
            rows.append((output if isinstance(output, Tensor) else output[0]).detach().requires_grad_())
            return rows[-1] if isinstance(output, Tensor) else (rows[-1], *output[1:])

        # Before transformers' own hook, which gives the projector of some models the hidden states that it recorded.
        hook = adapter.tower.layers(adapter.vision_tower)[layer].register_forward_hook(restart, prepend=True)
        features, made = encoded(adapter, inputs, kind), []
        hook.remove()
        direction = torch.randn(
            features.shape[-1], generator=torch.Generator(torch.get_default_device()).manual_seed(0)
        )
        for feature in features:
            slopes = torch.autograd.grad(feature @ direction, rows, retain_graph=True, materialize_grads=True)
            made.append(torch.cat([slope.flatten(0, -2).abs().sum(-1) > 0 for slope in slopes]))
        if torch.stack(made).any():
            break
    return torch.stack(made)
