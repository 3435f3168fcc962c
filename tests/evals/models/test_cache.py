"""The size of a KV cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from transformers import DynamicCache, LlamaConfig, QuantizedCache, cache_utils

from tokenprune.evals.models.cache import cache_bytes, cache_in

STATES = torch.randn(1, 2, 32, 16, generator=torch.Generator().manual_seed(0))  # 1024 numbers
BACKENDS: list[Any] = [
    # half a byte for each of 1024 numbers, and scale and shift in float32 for each of 64 groups
    ("quanto", {"nbits": 4, "q_group_size": 16}, 512 + 2 * 64 * 4),
    # a byte for each number, and one scale in float32
    *([("fp8", {}, 1024 + 4)] if hasattr(cache_utils, "Fp8QuantizedLayer") else []),
]


def filled(cache: Any) -> dict[str, Any]:
    for layer in range(2):
        cache.update(STATES, STATES, layer)
    return {"past_key_values": cache}


def test_keys_and_values() -> None:
    assert cache_bytes(filled(DynamicCache())) == 2 * 2 * 1024 * 4


@pytest.mark.usefixtures("quanto_in_python")
@pytest.mark.parametrize(("backend", "settings", "expected"), BACKENDS)
def test_quantised_states_and_their_scales(backend: str, settings: dict[str, Any], expected: int) -> None:
    """Tokens that are not yet quantised are counted too: with quanto, a later token takes a float32 number per
    channel."""
    cache = QuantizedCache(backend, LlamaConfig(num_hidden_layers=2), **settings)
    assert cache_bytes(filled(cache)) == 2 * 2 * expected
    later = STATES[:, :, :1]
    cache.update(later, later, 0)
    assert cache_bytes({"past_key_values": cache}) == 2 * 2 * expected + 2 * (32 if backend == "fp8" else 32 * 4)


@pytest.mark.parametrize("name", ["qwen3.5", "lfm2-vl", "hy-v4-vl", "unlimited-ocr"])
def test_what_other_layers_hold(name: str) -> None:
    """States of linear attention and short convolutions, an indexer's keys, and a model's own cache class."""
    family = FAMILIES[name]
    model, sizes = family.build(), []
    for images in ([1], [2]):
        asked = family.prompt(images)
        output = model.generate(**asked, max_new_tokens=1, return_dict_in_generate=True)
        held = [one for layer in cache_in(output)[1].layers for one in vars(layer).values()]
        parts = [part for one in held for part in (one.values() if isinstance(one, dict) else [one])]
        sizes.append(cache_bytes(output))
        assert sizes[-1] == sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))
    assert 0 < sizes[0] < sizes[1]
