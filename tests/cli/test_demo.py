"""`tokenprune demo` on the bundled model: a table and all pictures; and where there is no clone, what to do instead."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from demos.test_demos import DEMOS
from helpers.commands import command
from PIL import Image

demo = import_module("tokenprune.evals.cli.demo")  # the package's attribute of this name is the command


def test_a_table_and_a_picture_of_every_demo_that_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "STRATEGIES", ["grid"])
    monkeypatch.setattr(demo, "KEEP_RATIOS", [0.25])
    monkeypatch.setitem(demo.DRAWING, "grounding_gap", ["--limit", "1"])
    assert command("demo", "--limit", 1, "--output", tmp_path / "new") == 0
    printed = capsys.readouterr().out
    for told in ("The bundled model on the bundled scenes", "Grid", "64 of 256", "KV cache", "Everything is in"):
        assert told in printed
    assert {path.stem for path in DEMOS} == {"patch_your_model", *demo.DRAWING}
    for name in demo.DRAWING:
        pixels = np.asarray(Image.open(tmp_path / "new" / f"{name}.png").convert("L"))
        assert min(pixels.shape) > 400, name
        assert pixels.std() > 20, name


def test_outside_of_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "DEMOS"):
        with monkeypatch.context() as changed:
            changed.setattr(demo, name, tmp_path / "nowhere")
            assert "Type: make demo in a clone" in command("demo", "--output", tmp_path / "new")
    assert not (tmp_path / "new").exists()
