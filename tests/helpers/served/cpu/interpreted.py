"""vLLM's model runner V2, its default on GPUs, on a CPU: its Triton kernels run in Triton's interpreter."""

# pyright: reportMissingImports=false

import os
from types import SimpleNamespace
from typing import Any


class Driver:
    """The parts of a Triton driver that vLLM needs."""

    @staticmethod
    def is_active() -> bool:
        return True

    def get_current_target(self) -> Any:
        return SimpleNamespace(backend="cpu", arch="cpu", warp_size=1)


def interpret_kernels() -> None:
    """Make Triton report that it works on a CPU, so that vLLM uses it. Call it before vLLM is imported."""
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ["TORCHINDUCTOR_TRITON_DISABLE_DEVICE_DETECTION"] = "1"  # torch compiles for CPUs without Triton
    from triton.backends import backends
    from triton.runtime.interpreter import InterpreterBuilder

    backends["cpu"] = SimpleNamespace(driver=Driver)
    # A scalar condition for a whole block becomes integers, which the interpreter refuses as a mask.
    builder: Any = InterpreterBuilder
    load, store = builder.create_masked_load, builder.create_masked_store
    builder.create_masked_load = lambda self, pointers, mask, *others: load(self, pointers, as_mask(mask), *others)
    builder.create_masked_store = lambda self, to, value, mask, *others: store(self, to, value, as_mask(mask), *others)


def as_mask(condition: Any) -> Any:
    condition.data = condition.data.astype(bool)
    return condition
