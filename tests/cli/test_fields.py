"""Arguments of functions and options of commands have one definition."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import pytest

from tokenprune.evals.adapt.adapt import adapt
from tokenprune.evals.cli import build_parser
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.tune.tune import tune


@pytest.mark.parametrize(("command", "function"), [("eval", evaluate), ("tune", tune), ("adapt", adapt)])
def test_help_shows_the_arguments_and_their_defaults(command: str, function: Callable[..., Any]) -> None:
    options = vars(build_parser().parse_args([command]))
    model, *others = signature(function).parameters.values()
    assert (model.name, model.kind) == ("model", Parameter.POSITIONAL_OR_KEYWORD)
    assert {one.kind for one in others} == {Parameter.KEYWORD_ONLY}
    defaults = {one.name: one.default for one in others if one.default is not one.empty and one.name != "console"}
    assert len(defaults) > 15
    assert {name: options[name] for name in defaults} == defaults
    with pytest.raises(TypeError, match="unexpected keyword argument 'keep_ration'"):
        function("model", output="out", data="data", keep_ration=0.5)
