"""The command `tokenprune`, and the picture that it draws of a search."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demos.test_demos import load
from helpers.files.evals import saved
from helpers.files.search import deep_llava, scenes, searched, write_scenes
from PIL import Image
from typer.testing import CliRunner

import tokenprune
from tokenprune.__main__ import main
from tokenprune.evals.cli import COMMANDS, app
from tokenprune.evals.search import plot as search_plot
from tokenprune.strategies.vflowopt import VFlowOpt


@pytest.fixture
def model(tmp_path: Path) -> str:
    return saved(deep_llava(), tmp_path / "model")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    """Runs the command in this process; returns what it exits with."""
    monkeypatch.setattr(sys, "argv", ["tokenprune", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_help_and_version() -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["--help"])
    assert shown.exit_code == 0
    for command in COMMANDS:
        assert command in shown.output
        assert runner.invoke(app, [command, "--help"]).exit_code == 0
    assert runner.invoke(app, ["--version"]).output == f"tokenprune {tokenprune.__version__}\n"


def test_as_a_module() -> None:
    command = [sys.executable, "-m", "tokenprune", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert run.stdout == f"tokenprune {tokenprune.__version__}\n"


def test_optimize(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path / "scenes")
    monkeypatch.chdir(tmp_path)
    options = ["--keep-ratio", 0.3, "--trials", 2, "--samples", 3, "--no-recycle", "--output", "new/settings.json"]
    assert call(monkeypatch, "optimize", "--model", model, "--data", "scenes", *options) == 0
    printed = capsys.readouterr().out
    assert "tokenprune eval --strategy" in printed
    record = json.loads((tmp_path / "new" / "settings.json").read_text())
    assert record["model"]["name"] == "model"
    assert (record["search"]["data"]["name"], record["search"]["data"]["split"]) == ("scenes", "val")
    assert len(record["search"]["data"]["ids"]) == 3
    assert "rec-40" not in record["search"]["data"]["ids"]  # of split test
    assert (record["settings"]["recycle"], record["settings"]["keep_ratio"]) == (False, 0.3)
    assert (tmp_path / "new" / "settings.png").is_file()


def test_every_split_at_once(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scenes(tmp_path / "scenes")
    options = ["--split", "all", "--trials", 1, "--samples", 5, "--output", tmp_path / "settings.json"]
    assert call(monkeypatch, "optimize", "--model", model, "--data", tmp_path / "scenes", *options) == 0
    data = json.loads((tmp_path / "settings.json").read_text())["search"]["data"]
    assert (data["split"], data["ids"][-1]) == (None, "rec-40")


def test_our_errors_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scenes(tmp_path)
    said = call(monkeypatch, "optimize", "--data", tmp_path, "--keep-ratio", 7)
    assert said.startswith("Error: VFlowOpt: keep_ratio=7.0 is not a fraction")
    said = call(monkeypatch, "optimize", "--data", tmp_path, "--split", "trian")
    assert said.startswith("Error: ")
    assert "no split 'trian'; it has test, val" in said
    assert call(monkeypatch, "optimize", "--data", tmp_path).startswith("Error: 30 samples asked for")


def test_other_errors_are_shown_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        int("no number")

    monkeypatch.setattr("tokenprune.evals.cli.app", broken)
    with pytest.raises(ValueError, match="invalid literal"):
        main()


@pytest.mark.parametrize("missing", ["typer", "optuna"])
def test_without_the_extra(missing: str, tmp_path: Path) -> None:
    write_scenes(tmp_path)
    # A process of its own: modules that are imported twice would be two in all later tests.
    code = f"import sys; sys.modules[{missing!r}] = None; from tokenprune.__main__ import main; main()"
    command = [sys.executable, "-c", code, "optimize", "--data", str(tmp_path), "--samples", "1"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()
    assert said == f'The command needs {missing}, which is not installed. Type: pip install "tokenprune-vlm[evals]"'


def test_tokens_per_layer() -> None:
    strategy = VFlowOpt(keep_ratio=0.25, first=0.375, second=0.5)
    assert search_plot.tokens_per_layer(strategy, 6, 100) == [38, 38, 19, 19, 19, 19]
    assert search_plot.tokens_per_layer(VFlowOpt(keep_ratio=0.25, progressive=False), 4, 100) == [25] * 4


def test_demo(model: str, tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes")
    output = tmp_path / "new" / "search.png"
    options = ["--model", model, "--data", str(tmp_path / "scenes"), "--trials", "3", "--samples", "2"]
    load("vflow_search").main([*options, "--output", str(output)])
    pixels = np.asarray(Image.open(output).convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 500
    for half in np.array_split(pixels, 2, axis=1):
        orange = (abs(half - (0xD5, 0x5E, 0)) < 40).all(-1)
        assert orange.sum() > 200  # the best so far; the schedule found


def test_the_picture_shows_the_search(tmp_path: Path) -> None:
    samples = scenes(tmp_path / "scenes")
    for trials in (1, 4):
        searched(samples, tmp_path / "settings.json", trials)
        search_plot.draw(tmp_path / "settings.json", tmp_path / f"{trials}.png")
    one, four = (np.asarray(Image.open(tmp_path / f"{trials}.png")) for trials in (1, 4))
    assert one.shape == four.shape
    assert (one != four).any(-1).mean() > 0.002
    (tmp_path / "plain.json").write_text('{"strategy": "vflowopt", "settings": {}}')
    with pytest.raises(ValueError, match=r"plain\.json: no \"search\""):
        search_plot.draw(tmp_path / "plain.json", tmp_path / "plain.png")
