"""`make demo`: a table, and an image from every demo that draws."""

from pathlib import Path

import numpy as np
import pytest
from demos.test_demos import DEMOS, load
from helpers.files.evals import sample_image, saved
from helpers.files.search import write_scenes
from helpers.tiny import tiny_llava
from PIL import Image

from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage import results_io
from tokenprune.evals.storage.answers import SetupKey


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # DiffusionGemma's
def test_a_table_and_an_image_from_every_demo_that_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all = load("run_all")
    monkeypatch.setattr(run_all, "STRATEGIES", ["grid"])
    monkeypatch.setattr(run_all, "KEEP_RATIOS", [0.25])
    monkeypatch.setitem(run_all.DRAWING, "grounding_gap", ["--limit", "1"])
    image = tmp_path / "few_tiles.png"  # test_large.py runs the bundled image
    sample_image((500, 300)).save(image)
    monkeypatch.setitem(run_all.DRAWING, "large_image", [str(image), "Where is it?"])
    run_all.main(["--limit", "1", "--output", str(tmp_path / "new")])
    printed = capsys.readouterr().out
    for expected in ("The bundled model on the bundled scenes", "Grid", "64 of 256", "KV cache", "Everything is in"):
        assert expected in printed
    assert set(DEMOS) == {"patch_your_model", *run_all.PRINTING, *run_all.DRAWING}
    for name in (*run_all.DRAWING, "photograph"):
        pixels = np.asarray(Image.open(tmp_path / "new" / f"{name}.png").convert("L"))
        assert min(pixels.shape) > 400, name
        assert pixels.std() > 20, name


# The figure on position IDs and grounding.


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
