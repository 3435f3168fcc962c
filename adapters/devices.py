"""Where a model computes and where its weights are, even if accelerate offloads some to the CPU or a disk, or several
processes each compute some of a layer's heads (tensor parallelism)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tokenprune.adapters.base import ModelAdapter
from tokenprune.errors import UnsupportedError


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


#: The statistics that are read from the heads of the vision tower, and from those of the language model.
OF_TOWER, OF_DECODER = (
    {"vision_attention", "early_attention", "cls", "kept_in_tower"},
    {"text_attention", "canvas_attention"},
)


def check_heads(owner: str, needs: frozenset[str], adapter: ModelAdapter) -> None:
    """Raise UnsupportedError if any of the needs is read from heads that are split over several processes: the
    processes would keep different tokens."""
    names = {module: name for name, module in adapter.model.named_modules()}
    towers = tuple(f"{names[tower]}." for tower in (adapter.vision_tower, *adapter.vision_towers) if tower in names)
    plan: Any = adapter.model.tp_plan  # as DistributedConfig(tp_plan=...) has changed it
    attention = [name for name in plan if "att" in name]
    of_tower = [name for name in attention if name.startswith(towers)]
    split = (OF_TOWER if of_tower else set()) | (OF_DECODER if len(of_tower) < len(attention) else set())
    for need in sorted(needs & split):
        raise UnsupportedError(
            f"{owner} needs {need}, but with tensor parallelism (tp_size={adapter.model.tp_size}) every process has "
            f"only some of the heads that it is read from, so processes would keep different tokens. Load the model "
            f"with device_map, or use a strategy that reads features, such as DivPrune."
        )
