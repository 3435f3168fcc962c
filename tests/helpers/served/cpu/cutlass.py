"""CUTLASS and other packages of NVIDIA's, without which MiniMax M3 cannot be imported from vLLM 0.34 on: stand-ins with
every name, for kernels that are not called on a CPU."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

NAMES = ("cuda", "cutlass", "quack")


class StandIn(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in NAMES else None

    def create_module(self, spec: ModuleSpec) -> None: ...

    def exec_module(self, module: Any) -> None:
        module.__getattr__ = lambda name: MagicMock()


@cache
def stand_in_for_cutlass() -> None:
    if find_spec("cutlass") is None:
        sys.meta_path.append(StandIn())
