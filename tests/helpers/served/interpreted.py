"""vLLM's model runner V2, its default on GPUs, on a CPU: its Triton kernels run in Triton's interpreter."""

# pyright: reportMissingImports=false

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any


class Driver:
    """What vLLM asks of Triton's driver for a device."""

    @staticmethod
    def is_active() -> bool:
        return True

    def get_current_target(self) -> Any:
        return SimpleNamespace(backend="cpu", arch="cpu", warp_size=1)


def interpret_kernels() -> None:
    """Call it before vLLM is imported, which runs Triton on a CPU only if Triton says that it can."""
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ["TORCHINDUCTOR_TRITON_DISABLE_DEVICE_DETECTION"] = "1"  # torch compiles for CPUs without Triton
    from triton.backends import backends

    backends["cpu"] = SimpleNamespace(driver=Driver)
