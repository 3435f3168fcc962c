"""Checks of what a Python caller passes. The command line's parser checks its options itself.

Without them, a string would be read as a list of letters, and a loaded model would be asked 0 questions.
"""

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike, fspath
from typing import Any, TypeAlias

import tokenprune
from tokenprune.checks import is_integer, plain
from tokenprune.errors import SettingError
from tokenprune.patching.pruning import check_unpatched

Model: TypeAlias = str | PathLike[str] | tuple[Any, Any]


def as_model(model: Model) -> str | tuple[Any, Any]:
    """Return a folder or name as a string, and a pair of a model and its processor unchanged. SettingError for anything
    else, and for a patched model."""
    if isinstance(model, PathLike):
        return fspath(model)
    if isinstance(model, str):
        return model
    if isinstance(model, tuple) and len(model) == 2:
        check_unpatched(model[0])
        return model
    raise SettingError(
        f"model: found {type(model).__name__}; write a folder, a Hugging Face name, or both of a loaded model and its "
        "processor: (model, processor)"
    )


def as_strategies(strategies: Sequence[Any]) -> list[str | tokenprune.Strategy]:
    """Return names and Strategy objects, with settings files as strings. SettingError for anything else, and for an
    object with a budget that keep ratios would replace."""
    check_lists(strategies=strategies)
    found = [fspath(one) if isinstance(one, PathLike) else one for one in strategies]
    for one in found:
        if isinstance(one, type):
            raise SettingError(
                f"strategies: {one.__name__} is a class; write its name, or an object: {one.__name__}(keep_ratio=0.25)"
            )
        if not isinstance(one, (str, tokenprune.Strategy)):
            raise SettingError(f"strategies: found {type(one).__name__}; write names or Strategy objects")
        if isinstance(one, tokenprune.Strategy) and one.keep is not None:
            raise SettingError(
                f"strategies: {type(one).__name__}(keep={one.keep}): keep would have no effect, because keep_ratios "
                "says how much is kept. Leave it out here, and write a ratio there"
            )
    return found


def check_lists(**given: Any) -> None:
    """Raise SettingError, naming the argument, for a single value where several are expected, and for an iterator,
    which is empty when it is read again; None is a default."""
    for name, value in given.items():
        if value is not None and (isinstance(value, (str, Iterator)) or not isinstance(value, Iterable)):
            raise SettingError(f"{name}: found {value!r}, which is not a list; write {name}=[...]")


def as_counts(**given: Any) -> list[Any]:
    """Return the values in order, numpy integers as int. Raise SettingError, naming the argument, unless each is a
    whole number above 0, or None for a default."""
    for name, value in given.items():
        if value is not None and (not is_integer(value) or value < 1):
            raise SettingError(f"{name}={value!r} is not a whole number above 0")
    return [plain(value) for value in given.values()]
