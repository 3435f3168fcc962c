"""Where a model computes and where its weights are, even if accelerate offloads some to the CPU or a disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


def input_device(model: Any) -> torch.device:
    """Return the device for inputs.

    Offloaded weights are on no device until they are needed; the hook that fetches them knows which.
    """
    if model.device.type != "meta":
        return model.device
    devices = (hook.execution_device for _, hook in _hooks(model))
    return torch.device(next(device for device in devices if device is not None))


def offloaded_weights(model: Any) -> dict[str, Any]:
    """Return, by module name, the mappings from which accelerate fetches a module's weights by name."""
    return {name: hook.weights_map for name, hook in _hooks(model) if getattr(hook, "weights_map", None) is not None}


def _hooks(model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        for part in getattr(hook, "hooks", [hook]):
            if hasattr(part, "execution_device"):
                yield name, part
