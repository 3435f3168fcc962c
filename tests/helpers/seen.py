"""The inputs of a model's layers in a case of the bench."""

from typing import Any

import torch

from tokenprune.adapters import adapter_for
from tokenprune.evals.bench.cases import Case
from tokenprune.evals.models.cache import cache_in


def seen_by(model: Any, case: Case) -> list[Any]:
    """Return the sizes of each layer's MLP inputs, and of the cache."""
    adapter, seen = adapter_for(model), []
    layers: list[Any] = [*adapter.layers, *adapter.tower.layers(adapter.vision_tower)]
    with case.patched(), torch.inference_mode():
        hooks = [
            layer.mlp.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape)) for layer in layers
        ]
        _, cache = cache_in(case.prefill())
        for hook in hooks:
            hook.remove()
    return [*seen, *(layer.keys.shape for layer in cache.layers)]
