"""Weights that consist of several tensors, as in torchao and quanto."""

from __future__ import annotations

import json
from typing import Any

import torch
from helpers.tiny import tiny_llava
from torch import Tensor, nn
from transformers import QuantoConfig

from tokenprune.evals.models.tensors import stored_bytes
from tokenprune.evals.storage.provenance import model_identity, weights_digest


class Scaled(Tensor):
    """Integers with their scale. It has hardly any operators, like torchao's, which have no `view`, for example."""

    integers: Tensor
    scale: Tensor

    def __new__(cls, integers: Tensor, scale: Tensor) -> Scaled:
        made: Any = torch.Tensor._make_wrapper_subclass(cls, integers.shape, dtype=scale.dtype)
        made.integers, made.scale = integers, scale
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["integers", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.detach.default:
            raise NotImplementedError(func)
        return cls(args[0].integers, args[0].scale)


def quantised(integers: int, scale: float) -> nn.Linear:
    model = nn.Linear(16, 8, bias=False)
    weight = Scaled(torch.full((8, 16), integers, dtype=torch.int8), torch.full((8,), scale))
    model.weight = nn.Parameter(weight, requires_grad=False)
    return model


def test_integers_and_scales_are_counted() -> None:
    assert stored_bytes(torch.randn(8, 16)) == 8 * 16 * 4
    assert stored_bytes(quantised(3, 0.5).weight) == 8 * 16 + 8 * 4


def test_a_digest_is_of_integers_and_scales() -> None:
    assert weights_digest(quantised(3, 0.5)) == weights_digest(quantised(3, 0.5))
    different = {weights_digest(quantised(integers, scale)) for integers, scale in [(3, 0.5), (3, 0.25), (2, 0.5)]}
    assert len(different) == 3


def test_an_identity_says_how_a_model_is_quantised() -> None:
    """Weights alone do not show whether activations are quantised too."""
    model = tiny_llava()
    plain = model_identity(model)
    model.config.quantization_config = QuantoConfig(weights="int8")
    found = json.loads(json.dumps(model_identity(model)))
    assert found.pop("quantised")["weights"] == "int8"
    assert found == plain
