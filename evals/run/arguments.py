"""Checks of the models and strategies that a Python caller passes."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import tokenprune
from tokenprune.errors import SettingError
from tokenprune.evals.arguments.options import Model
from tokenprune.patching.pruning import check_unpatched


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
    given = [fspath(item) if isinstance(item, PathLike) else item for item in strategies]
    for item in given:
        if isinstance(item, type):
            raise SettingError(
                f"strategies: {item.__name__} is a class; write its name, or an object: "
                f"{item.__name__}(keep_ratio=0.25)"
            )
        if not isinstance(item, (str, tokenprune.Strategy)):
            raise SettingError(f"strategies: found {type(item).__name__}; write names or Strategy objects")
        if isinstance(item, tokenprune.Strategy) and item.keep is not None:
            raise SettingError(
                f"strategies: {type(item).__name__}(keep={item.keep}): keep would have no effect, because keep_ratios "
                "says how much is kept. Leave it out here, and write a ratio there"
            )
    return given
