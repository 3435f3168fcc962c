"""Override a module's forward, or its training mode, for as long as a `with` block lasts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def overridden_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Call `forward` in place of the module's own inside the block. An override by somebody else, such as accelerate,
    is restored at its end."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch off what modules do in training alone, such as dropout, inside the block. Each module has its own mode
    again at its end."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
