"""What other installed packages offer through entry points: strategies, model adapters and vision towers."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tokenprune.errors import UnsupportedError


def entry_points_of(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name. None is loaded."""
    return {entry.name: entry for entry in entry_points(group=group)}


def load_entry_point(entry: EntryPoint, what: str, fits: Callable[[Any], bool], wanted: str) -> Any:
    """Import an entry point's object. Errors call it `what` ("the model adapter for Llava"), and say that it is not
    `wanted` unless it `fits`.

    Raises UnsupportedError if it cannot be imported or does not fit.
    """
    package = entry.dist.name if entry.dist is not None else "a package"
    try:
        found = entry.load()
    except Exception as error:  # the package's own code may raise anything
        raise UnsupportedError(
            f"{package} provides {what}, but it cannot be imported from {entry.value}: {error!r}. Update or uninstall "
            f"{package}."
        ) from error
    if not fits(found):
        raise UnsupportedError(
            f"{package} names {entry.value} as {what}, but that is not {wanted}. Update or uninstall {package}."
        )
    return found
