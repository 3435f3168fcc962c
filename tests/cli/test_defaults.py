"""Commands and the functions that they call have the same defaults."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest

from tokenprune.evals.adapt.adapt import adapt
from tokenprune.evals.cli import build_parser
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.tune.tune import tune

#: Arguments whose options have other names.
OPTIONS = {"strategies": "strategy", "keep_ratios": "keep_ratio", "image_roots": "image_root"}


@pytest.mark.parametrize(("command", "function"), [("eval", evaluate), ("tune", tune), ("adapt", adapt)])
def test_defaults(command: str, function: Callable[..., Any]) -> None:
    options = vars(build_parser().parse_args([command]))
    defaults = {
        OPTIONS.get(name, name): parameter.default
        for name, parameter in signature(function).parameters.items()
        if parameter.default is not parameter.empty
    }
    shared = defaults.keys() & options.keys()
    assert len(shared) > 10
    if command == "tune":  # no names means the defaults, whose module imports optuna
        shared -= {"strategy"}
    assert {name: plain(options[name]) for name in shared} == {name: plain(defaults[name]) for name in shared}


def plain(value: object) -> object:
    """The parser has lists where functions have tuples."""
    return tuple(value) if isinstance(value, list) else value
