"""Tell one set of weights from another one, without reading all of them."""

import hashlib
from typing import Any

import torch

from tokenprune.evals.models.devices import kept_elsewhere

SAMPLED = 64


def weights_digest(model: Any) -> str:
    """Return a digest of the model's class and of the name, shape and up to 64 values of each weight.

    It is the same on every device, and where accelerate keeps weights on the CPU or a disk.
    """
    digest, elsewhere = hashlib.sha256(type(model).__name__.encode()), kept_elsewhere(model)
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        if isinstance(weight, torch.Tensor):
            module, _, own_name = name.rpartition(".")
            weight = elsewhere[module][own_name] if weight.is_meta else weight
            values = weight.detach().flatten()[:: max(1, weight.numel() // SAMPLED)][:SAMPLED]
            digest.update(values.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
