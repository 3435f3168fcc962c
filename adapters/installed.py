"""What other installed distributions offer through entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

from tokenprune.errors import UnsupportedError


def load_installed(entry: EntryPoint, what: str, fits: Callable[[Any], bool], wanted: str) -> Any:
    """Import an entry point's object. Errors call it `what` ("model adapter"), and say that it is not `wanted` unless
    it `fits`.

    Raises UnsupportedError if it cannot be imported or does not fit.
    """
    package = entry.dist.name if entry.dist is not None else "a package"
    try:
        found = entry.load()
    except Exception as error:
        raise UnsupportedError(
            f"{package} provides the {what} for {entry.name}, but it cannot be imported from {entry.value}: "
            f"{error!r}. Update or uninstall {package}."
        ) from error
    if not fits(found):
        raise UnsupportedError(
            f"{package} names {entry.value} as the {what} for {entry.name}, but that is not {wanted}. Update or "
            f"uninstall {package}."
        )
    return found
