"""Where a model's weights are and where it computes, also of one that accelerate keeps in part on the CPU or a disk."""

from collections.abc import Iterator
from typing import Any

import torch


def input_device(model: Any) -> torch.device:
    """Return the device that inputs go to. Weights that are kept elsewhere are on none until they are needed; then the
    hook that fetches them knows where to."""
    if model.device.type != "meta":
        return model.device
    devices = (hook.execution_device for _, hook in _hooks(model))
    return torch.device(next(device for device in devices if device is not None))


def kept_elsewhere(model: Any) -> dict[str, Any]:
    """Return, for each module by its name, a mapping from which accelerate fetches its weights by theirs."""
    return {name: hook.weights_map for name, hook in _hooks(model) if getattr(hook, "weights_map", None) is not None}


def _hooks(model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        for one in getattr(hook, "hooks", [hook]):
            if hasattr(one, "execution_device"):
                yield name, one
