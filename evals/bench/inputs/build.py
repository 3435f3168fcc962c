"""Build a model with random weights from its configuration, directly in its dtype and on its device."""

from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from tokenprune.errors import UnsupportedError
from tokenprune.evals.bench.inputs.shapes import SHAPES
from tokenprune.evals.bench.timing.memory import free_bytes

#: Memory for the weights and a forward pass, as a multiple of the weights.
MARGIN = 1.1
#: How many random numbers are drawn; weights repeat them, because drawing 7 billion takes minutes.
DRAWN = 1 << 20


def build(name: str, config: Any, dtype: torch.dtype, device: torch.device, attention: str) -> Any:
    """Return a model with this configuration, in evaluation mode.

    name: for errors; for a shape of the bench, its name in SHAPES.

    Raises UnsupportedError if its weights do not fit into the device's free memory.
    """
    with init_empty_weights(include_buffers=False):  # buffers are small and not random
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attention)
    model.tie_weights()
    weights = sum(weight.nbytes for weight in model.parameters())
    free = free_bytes(device)
    if MARGIN * weights > free:
        raise UnsupportedError(
            f"{name} in {dtype} needs {MARGIN * weights / 1e9:.1f} GB for its weights and a forward pass, and "
            f"{device.type} has {free / 1e9:.1f} GB free. Free some, choose --dtype bfloat16, or a smaller --shape of "
            f"{', '.join(SHAPES)}."
        )
    drawn = torch.randn(DRAWN, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(device, dtype)
    for module in model.modules():
        for key, weight in module._parameters.items():
            if weight is not None:
                module._parameters[key] = nn.Parameter(_filled(key, weight, drawn), requires_grad=False)
    model.tie_weights()
    return model.to(device).eval()


def _filled(name: str, like: Tensor, drawn: Tensor) -> Tensor:
    """Return random values; weights of norms are 1 and biases 0, so that states keep an ordinary size."""
    weight = torch.empty(like.shape, dtype=like.dtype, device=drawn.device)
    if weight.ndim == 1 and name in ("weight", "bias"):
        return weight.fill_(1.0 if name == "weight" else 0.0)
    flat = weight.view(-1)
    for part in flat.split(len(drawn)):
        part.copy_(drawn[: len(part)])
    return weight
