"""The figure on position IDs and grounding: its demo asks, stores its rows and draws."""

from pathlib import Path

import numpy as np
import pytest
from demos.test_demos import load
from helpers.files.evals import saved
from helpers.files.search import write_scenes
from helpers.tiny import tiny_llava
from PIL import Image

from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage import results_io
from tokenprune.evals.storage.answers import SetupKey

RATIOS = (0.5, 0.25)
RIGHT, WRONG = "50 25 74 74", "00 00 20 20"


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path / "scenes")
    model = saved(tiny_llava(), tmp_path / "model")
    output = tmp_path / "new" / "gap.png"
    options = ["--model", model, "--data", str(tmp_path / "scenes"), "--strategy", "grid", "--limit", "3"]
    options += ["--keep-ratio", "0.5", "0.25", "--output", str(output)]
    load("grounding_gap").main(options)
    rows = results_io.read([output.with_suffix(".jsonl")])
    pruned = [("Grid", ids, ratio) for ratio in RATIOS for ids in ("original", "compact")]
    assert [row.key for row in rows] == [SetupKey(UNPRUNED, "original", 1.0), *(SetupKey(*key) for key in pruned)]
    assert {row.n for row in rows} == {3}
    drawn = np.asarray(Image.open(output).convert("RGB"))
    assert min(drawn.shape[:2]) > 700
    assert all(half.std() > 20 for half in np.array_split(drawn, 2, axis=1))
    capsys.readouterr()
    load("grounding_gap").main(options)
    assert "15/15 0:00:00" in capsys.readouterr().out  # nothing is asked again
