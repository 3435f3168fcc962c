"""A simulated device for a machine without one: CPU tensors that claim to be elsewhere.

Inside `Pretended()`, tensors that were moved to DEVICE do not mix with the CPU's: an operation on both raises, as on a
GPU. Whatever would make the CPU wait for a GPU is recorded, with the place in our code that caused it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

import tokenprune
import tokenprune.adapters

#: A device type that PyTorch knows and that needs no driver. It stores no values, so no tensor is really made there.
DEVICE = torch.device("meta")
CPU = torch.device("cpu")
aten = torch.ops.aten

#: Operations that return numbers, or tensors whose shape depends on values: on a GPU, all of them wait.
WAITING = {
    aten._local_scalar_dense,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten.bincount,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
}
OURS = [str(Path(package).resolve().parent) for package in (tokenprune.__file__, tokenprune.adapters.__file__)]


class Elsewhere(Tensor):
    """A tensor on DEVICE. `held` is the real tensor."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{function} was called on a tensor of {DEVICE} outside Pretended()")


@dataclass(frozen=True)
class Wait:
    """What made the CPU wait: an operation, and the place in our code that caused it; None if transformers did."""

    operation: str
    place: str | None

    @classmethod
    def now(cls, operation: str) -> Wait:
        """Return a wait that happens now, caused by the nearest caller on the stack."""
        place = None
        for frame in reversed(traceback.extract_stack()):
            path = str(Path(frame.filename).resolve())
            if any(path.startswith(folder) for folder in OURS):
                place = f"{Path(path).name}:{frame.lineno} {frame.line}"
                break
            if "/transformers/" in path:
                break
        return cls(operation, place)

    def __str__(self) -> str:
        return f"{self.operation} at {self.place}"


class FromPython(TorchFunctionMode):
    """Converts Python numbers to tensors and tensors to numbers, neither of which PyTorch can do on DEVICE."""

    def __init__(self, waits: list[Wait]) -> None:
        self.waits = waits
        super().__init__()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is Tensor.tolist and isinstance(args[0], Elsewhere):
            self.waits.append(Wait.now("Tensor.tolist"))
            return args[0].held.tolist()
        device = kwargs.get("device", args[0].device if function is Tensor.new_tensor else None)
        if function not in (torch.tensor, torch.as_tensor, Tensor.new_tensor) or not _is_there(device):
            return function(*args, **kwargs)
        self.waits.append(Wait.now(str(function)))
        return Elsewhere(torch.tensor(args[-1], **{**kwargs, "device": CPU}))


class Pretended(TorchDispatchMode):
    """waits: what the CPU has waited for. operations: how many were put into the device's queue."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.operations = 0
        self._from_python = FromPython(self.waits)

    def __enter__(self) -> Pretended:
        self._from_python.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._from_python.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
        there = [one for one in given if isinstance(one, Elsewhere)]
        packet, device = function.overloadpacket, kwargs.get("device")
        if packet is aten._to_copy:
            to = given[0].device if device is None else torch.device(device)
            waits = to != given[0].device
        elif packet is aten.copy_:
            to = given[0].device
            waits = to != given[1].device
        else:
            if there and any(one.ndim and not isinstance(one, Elsewhere) for one in given):
                raise RuntimeError(f"{function}: tensors on {DEVICE} and on the CPU, {[one.shape for one in given]}")
            to = DEVICE if there or _is_there(device) else CPU
            waits = there and (packet in WAITING or _by_mask(packet, args))
        if waits:
            self.waits.append(Wait.now(str(function)))
        if device is not None:
            kwargs["device"] = CPU
        self.operations += to != CPU
        args, kwargs = tree_map_only(Elsewhere, lambda one: one.held, (args, kwargs))
        out = function(*args, **kwargs)
        if to == CPU:
            return out
        known = {id(one.held): one for one in there}  # a tensor that is changed in place stays the same object
        return tree_map_only(Tensor, lambda one: known[id(one)] if id(one) in known else Elsewhere(one), out)

    @property
    def ours(self) -> list[Wait]:
        """Return the waits that our code caused."""
        return [wait for wait in self.waits if wait.place is not None]


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _by_mask(packet: Any, args: Any) -> bool:
    """Return whether tensors are indexed by masks, whose true entries must be counted first."""
    if packet not in (aten.index, aten.index_put, aten.index_put_):
        return False
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])


@contextmanager
def moved(model: nn.Module) -> Iterator[None]:
    """Within the block, a model's weights and buffers are on DEVICE."""
    places: list[tuple[dict[str, Any], str, Any]] = []
    for module in model.modules():
        stores: list[dict[str, Any]] = [module._parameters, module._buffers]
        for store in stores:
            for name, tensor in store.items():
                if tensor is not None:
                    places.append((store, name, tensor))
                    store[name] = Elsewhere(tensor.detach())
    try:
        yield
    finally:
        for store, name, tensor in places:
            store[name] = tensor
