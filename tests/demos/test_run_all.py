"""`make demo`: a table, and an image from every demo that draws."""

from pathlib import Path

import numpy as np
import pytest
from demos.test_demos import DEMOS, load
from helpers.files.evals import sample_image
from PIL import Image


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
