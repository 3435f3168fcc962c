"""Override a module's forward, or its training mode, for as long as a `with` block lasts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def overridden_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Call `forward` in place of the module's own inside the block. Another override, such as accelerate's, is restored
    at the end."""
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
    """Switch off training behaviour, such as dropout, inside the block. Each module's own mode is restored at the
    end."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
