"""Only functions whose annotations have shapes are checked by jaxtyping; all others by beartype alone.

pytest's option --jaxtyping-packages decorates every function in `tokenprune` with `jaxtyping.jaxtyped`, which binds the
arguments of every call to look for shapes. Nine functions of ten have none. With it, a quarter of the time of the
contract's tests was spent on annotations; now it is a seventh.

Imported before anything of `tokenprune`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any, get_args, get_type_hints

import jaxtyping

Decorator = Callable[[Any], Any]
_jaxtyped = jaxtyping.jaxtyped


def jaxtyped(*, typechecker: Decorator) -> Decorator:
    """Stands in for jaxtyping's function of this name; `jaxtyping.config` turns it off, too."""

    def decorate(checked: Any) -> Any:
        # Of a nested function, beartype keeps the closure alive: tests would find its tensors leaked.
        if not isinstance(checked, FunctionType) or "<locals>" in checked.__qualname__ or _has_shapes(checked):
            return _jaxtyped(checked, typechecker=typechecker)
        return _by(typechecker, checked)

    return decorate


def _by(typechecker: Decorator, function: FunctionType) -> Any:
    checked, config = typechecker(function), jaxtyping.config

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return (function if config.jaxtyping_disable else checked)(*args, **kwargs)

    return call


def _has_shapes(function: FunctionType) -> bool:
    """Whether a hint has a shape. True also if one cannot be resolved: jaxtyping treats it as Any, beartype fails."""
    try:
        return any(_is_shape(hint) for hint in get_type_hints(function).values())
    except NameError:  # imported for type checkers alone, or defined further down
        return True


def _is_shape(hint: Any) -> bool:
    return getattr(hint, "__module__", None) == "jaxtyping" or any(_is_shape(part) for part in get_args(hint))


jaxtyping.jaxtyped = jaxtyped
