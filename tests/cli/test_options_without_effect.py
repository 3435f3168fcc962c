"""Options without effect and options without a value are errors, reported before a model is loaded."""

from __future__ import annotations

from pathlib import Path

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
        (["eval", "--strategy", "none", "fopru"], "--strategy none fopru: none cannot be combined with other names"),
        (["eval", "--baselines", "random", "none"], "Leave out none, or write --baselines none alone"),
        (["eval", "--engine", "vllm", "--batch-tokens", 9], "(--batch-tokens) has no effect with an engine"),
        (["adapt", "--model", "x", "--data", "y", "--batch-tokens", 9], "(--batch-tokens) has no effect with labels"),
        (["layers", "--model", "x", "--stages", 3, "--block"], "--skip and --block have no effect with --stages"),
    ],
)
def test_options_without_effect(words: list[object], said: str) -> None:
    assert said in command(*words)


@pytest.mark.parametrize("value", ["null", '["runs", null]'])
def test_null_in_a_settings_file(value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise `None` would be used as the name of a folder, for example."""
    (tmp_path / "e.json").write_text(f'{{"output": {value}}}')
    assert command("eval", "--settings", tmp_path / "e.json") == 2
    assert "e.json: output is null; give it a value, or leave it out" in capsys.readouterr().err
