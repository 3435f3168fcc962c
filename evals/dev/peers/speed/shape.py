"""The model and the prompt of `run.py`, the same in all environments: CLIP-L/336 on a narrow Llama.

The weights are random, because time does not depend on them. They make attention far from uniform, because selection
depends on attention.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

VISION: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "projection_dim": 768,
    "image_size": 336,
    "patch_size": 14,
}
TEXT: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 32000,
}
N_VISUAL, KEEP, CONTEXTUAL = 576, 64, 10
#: The prompt: a first token, the image, and text as long as a question.
IMAGE, BEFORE, AFTER = 31999, [1], list(range(100, 146))
#: The spread of the queries' and keys' weights, as a multiple of 1 / sqrt(width).
SHARPNESS = 1.5


def seeded(model: Any) -> None:
    """Draw new weights for `model`."""
    generator = torch.Generator().manual_seed(0)
    for name, weights in model.named_parameters():
        if weights.ndim > 1:
            spread = SHARPNESS if "q_proj" in name or "k_proj" in name else 0.7
            weights.data.normal_(0, spread / weights.shape[-1] ** 0.5, generator=generator)


def random_pixels(dtype: torch.dtype, batch: int = 1) -> Tensor:
    """Return pixels (batch, 3, 336, 336): one image per row."""
    side = VISION["image_size"]
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)


def weights(folder: Path, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the model's weights, with prefixes that are keys of `names` replaced by their values. The tensors are
    pages of the file, which processes share unless they copy them."""
    tensors = load_file(folder / "model.safetensors")
    prefixes = {name: next(prefix for prefix in names if name.startswith(prefix)) for name in tensors}
    return {names[prefix] + name.removeprefix(prefix): tensors[name] for name, prefix in prefixes.items()}


def kv_bytes(cache: Any) -> int:
    """Return the bytes of a cache's keys and values, whether it consists of tuples (the old format) or of layers."""
    layers = [(layer.keys, layer.values) for layer in cache.layers] if hasattr(cache, "layers") else cache
    return sum(states.numel() * states.element_size() for layer in layers for states in layer[:2])
