"""What a call passes, and what is in progress while it lasts."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import nn

Function = TypeVar("Function", bound=Callable[..., Any])


def uncompiled(function: Function) -> Function:
    """For every callback on a model: torch.compile leaves it out of its graphs. What it cannot follow in one, such as
    attributes per thread, it would take for constant, and then prune nothing without a word."""
    return cast(Function, torch.compiler.disable(function))


class PerThread(threading.local):
    """Attributes of which every thread has its own, as `__init__` without arguments leaves them. A copy of the object
    and a pickle start anew."""

    def __reduce__(self) -> tuple[type[PerThread], tuple[()]]:
        return type(self), ()


def guard_hooks() -> None:
    """Makes torch.compile look for hooks on modules; by default compiled code goes on as if no hook came or went, and
    layers share it whether they have hooks or not. The switch holds for the whole process."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and dynamo.config.skip_nnmodule_hook_guards:
        dynamo.config.skip_nnmodule_hook_guards = False
        torch.compiler.reset()


def named_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a module's call by name, in a new dict."""
    return bound(inspect.signature(module.forward), args, kwargs) if args else dict(kwargs)


def bound(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, those caught by ** included."""
    named = dict(signature.bind_partial(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    return named
