"""Let jaxtyping check only functions whose annotations have shapes, and beartype all others.

pytest's option --jaxtyping-packages decorates every function in `tokenprune` with `jaxtyping.jaxtyped`, which binds the
arguments of every call to look for shapes. Nine in ten functions have none. The plain option spends a quarter of the
contract tests' time on annotations, this a seventh.

Must be imported before anything of `tokenprune`.
"""

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any, get_args, get_type_hints

import jaxtyping

Decorator = Callable[[Any], Any]
_jaxtyped = jaxtyping.jaxtyped


def jaxtyped(*, typechecker: Decorator) -> Decorator:
    """Replaces jaxtyping's function of this name; `jaxtyping.config` turns it off too."""

    def decorate(checked: Any) -> Any:
        # beartype keeps the closures of nested functions alive, so tests would find their tensors leaked.
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
    """Return whether a hint has a shape, or cannot be resolved: jaxtyping treats that as Any, but beartype fails."""
    try:
        return any(_is_shape(hint) for hint in get_type_hints(function).values())
    except NameError:  # imported only for type checkers, or defined further down
        return True


def _is_shape(hint: Any) -> bool:
    return getattr(hint, "__module__", None) == "jaxtyping" or any(_is_shape(part) for part in get_args(hint))


jaxtyping.jaxtyped = jaxtyped
