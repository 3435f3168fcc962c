"""Memory: the peak of a call, what is free, and an allocator that does not disturb the timings.

The peak is the largest number of bytes that tensors occupy during a call, beyond those before it. On a GPU, PyTorch's
allocator counts it. On a CPU nothing does, so every operation is watched, and the bytes of the tensors that it returns
count until they are freed. Neither includes what a kernel allocates for itself while it runs.

glibc returns large blocks to the kernel as soon as they are freed, and every page of the next block must be fetched
again. That takes several per cent of a prefill on a CPU, and depends on where a few blocks happen to lie, so it differs
between cases that do the same work. `keep_memory` keeps freed memory in the process.
"""

import ctypes
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

Result = TypeVar("Result")

#: glibc's tunables for a new process: no separate blocks, nothing returned.
ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def with_peak(call: Callable[[], Result], device: torch.device) -> tuple[Result, int]:
    """Return a call's result and its peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        return result, torch.cuda.max_memory_allocated(device) - before
    with LiveBytes() as live:
        result = call()
    return result, live.peak


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations allocate, each once, for as long as a tensor uses it.

    peak: the most bytes at once. Views and in-place operations do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {_address(leaf) for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_iter(result):
            if isinstance(leaf, Tensor) and _address(leaf) not in given | self._known:
                self._allocated(leaf.untyped_storage())
        self.peak = max(self.peak, self._now)
        return result

    def _allocated(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        self._known.add(address)
        self._now += size
        weakref.finalize(storage, self._freed, address, size)

    def _freed(self, address: int, size: int) -> None:
        self._known.discard(address)
        self._now -= size


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def free_bytes(device: torch.device) -> int:
    """Return how many bytes of a device's memory are free; on a CPU, how many are available without swapping."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def keep_memory() -> bool:
    """Keep freed memory in this process from now on, as `ENVIRONMENT` does in a new one. Return False, and set nothing,
    if its C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_MMAP_MAX, 0))
