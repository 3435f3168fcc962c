"""Options that would do nothing are errors, said before a model is loaded."""

from __future__ import annotations

import pytest
from helpers.commands import command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench", "--model", "x", "--shape", "llava-1.5-7b"], "--shape has no effect with --model"),
        (["bench", "--new-tokens", 4], "--new-tokens and --memory have no effect without --throughput"),
        (["bench", "--memory", 3], "--new-tokens and --memory have no effect without --throughput"),
        (["layers", "--model", "x", "--stages", 3, "--skip", 2], "--skip and --block have no effect with --stages"),
        (["report", "x", "--into", "x.md", "--output", "y"], "--output and --losses have no effect with --into"),
        (["eval", "--strategy", "none", "fopru"], "--strategy none fopru: none stands for no names"),
        (["eval", "--baselines", "random", "none"], "Leave out none, or write --baselines none alone"),
        (["layers", "--model", "x", "--stages", 3, "--block"], "--skip and --block have no effect with --stages"),
    ],
)
def test_options_without_effect(words: list[object], said: str) -> None:
    assert said in command(*words)
