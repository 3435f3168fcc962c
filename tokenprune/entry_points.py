"""Strategies, model adapters and vision towers that other installed packages offer through entry points."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tokenprune.errors import UnsupportedError

#: Groups and names of ours that were searched for in installed packages: once per process, which takes milliseconds.
COMPARED: set[tuple[str, str]] = set()


def entry_points_of(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name, not loaded."""
    return {entry.name: entry for entry in entry_points(group=group)}


def warn_of_namesakes(group: str, name: str, used: object, what: str, instead: Callable[[EntryPoint], str]) -> None:
    """Warn if installed packages offer something under the same name as `used`, which is ours. The message calls it
    `what` ("a strategy 'fopru'") and says what to write `instead` to use theirs."""
    if (group, name) in COMPARED:
        return
    COMPARED.add((group, name))
    for entry in entry_points(group=group, name=name):
        if getattr(sys.modules.get(entry.module), entry.attr, None) is not used:
            warnings.warn(
                f"{_package(entry)} provides {what} too, {entry.value}, which is not used: the name is tokenprune's. "
                f"{instead(entry)}",
                stacklevel=4,
            )


def load_entry_point(entry: EntryPoint, what: str, fits: Callable[[Any], bool], wanted: str) -> Any:
    """Import an entry point's object. Errors call it `what` ("the model adapter for Llava"), and say that it is not
    `wanted` unless it `fits`.

    Raises UnsupportedError if it cannot be imported or does not fit, or if two packages offer it.
    """
    package, others = _package(entry), entry_points(group=entry.group, name=entry.name)
    if len({other.value for other in others}) > 1:
        raise UnsupportedError(
            f"several packages provide {what}: {', '.join(f'{_package(each)} ({each.value})' for each in others)}. "
            f"Uninstall all but one."
        )
    try:
        loaded = entry.load()
    except Exception as error:  # the package's own code may raise anything
        raise UnsupportedError(
            f"{package} provides {what}, but it cannot be imported from {entry.value}: {error!r}. Update or uninstall "
            f"{package}."
        ) from error
    if not fits(loaded):
        raise UnsupportedError(
            f"{package} names {entry.value} as {what}, but that is not {wanted}. Update or uninstall {package}."
        )
    return loaded


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "a package"
