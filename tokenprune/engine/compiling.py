"""Makes torch.compile work with a patched model, and refuses torch.export. torch's compiler is imported when the first
model is patched."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import reduce
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakSet

import torch

from tokenprune.errors import UnsupportedError

Function = TypeVar("Function", bound=Callable[..., Any])

#: Modules and qualified names of marked functions that the compiler has not been told about yet.
_marked: list[tuple[str, str]] = []
#: Patches that need compiled code to look for hooks.
_watching: WeakSet[Any] = WeakSet()
_lock = Lock()
_switched = False  # whether the first of them changed the compiler's configuration


def dynamo_disabled(function: Function) -> Function:
    """Keep a function or method that runs inside a patched model out of compiled graphs. The compiler cannot follow
    per-thread attributes: it would take them for constants, and the compiled model would silently prune nothing."""
    _marked.append((function.__module__, function.__qualname__))
    return function


def check_not_traced() -> None:
    """Raise UnsupportedError while torch.export, torch.jit.trace or torch.onnx.export records a graph, which would keep
    the example's tokens for every image. torch.compile is fine: hooks run as usual in compiled code."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():  # pyright: ignore[reportPrivateImportUsage]
        raise UnsupportedError(
            "a patched model can be neither exported nor traced (torch.export, torch.jit.trace, torch.onnx.export): "
            "which visual tokens are kept depends on the image, and the graph would always keep those of the example. "
            "Remove the patch first, and export the unpatched model."
        )


def watch_hooks(owner: object) -> None:
    """Make torch.compile look for hooks until `unwatch_hooks`. By default, compiled code ignores hooks that are added
    or removed, and layers share it whether they have hooks or not. The setting is process-wide."""
    global _switched
    with _lock:
        while _marked:
            module, qualified = _marked.pop()
            *path, name = qualified.split(".")
            holder = reduce(getattr, path, sys.modules[module])
            setattr(holder, name, torch.compiler.disable(vars(holder)[name]))
        config = torch._dynamo.config  # `disable` has imported it
        if config.skip_nnmodule_hook_guards:
            config.skip_nnmodule_hook_guards = False
            torch.compiler.reset()
            _switched = True
        _watching.add(owner)


def unwatch_hooks(owner: object) -> None:
    """Restore the setting once nobody needs it any more."""
    global _switched
    with _lock:
        _watching.discard(owner)
        if _switched and not _watching:
            torch._dynamo.config.skip_nnmodule_hook_guards = True
            _switched = False
