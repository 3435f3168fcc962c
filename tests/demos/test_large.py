"""`large_image.py` on the bundled model and image: it finds the object, and its figure shows what was encoded."""

from pathlib import Path

import numpy as np
import pytest
from demos.test_demos import load
from helpers.files.evals import sample_image
from PIL import Image

from tokenprune.evals.dev.figures import large_image
from tokenprune.evals.models.bundled import MODEL
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.run.setups import make_setups


def test_the_bundled_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "large.png"
    load("large_image").main(["--output", str(output)])
    assert "encoded 4352 visual tokens, 16.8% of those of the thumbnail and all tiles" in capsys.readouterr().out
    pixels = np.asarray(Image.open(output).convert("L")).astype(float)
    assert min(pixels.shape) > 1500
    looked_at, left = np.array_split(pixels[pixels.shape[0] // 10 : pixels.shape[0] // 2], 2, axis=1)
    assert min(looked_at.std(), left.std()) > 20
    width = min(looked_at.shape[1], left.shape[1])
    assert np.abs(looked_at[:, :width] - left[:, :width]).mean() > 20


def test_an_image_of_one_tile_is_refused() -> None:
    model, processor = load_model(str(MODEL), "auto")
    (pruned,) = make_setups(["grid"], [0.25], ["original"], baselines=[])
    with pytest.raises(ValueError, match="one tile of 224; take a larger image"):
        large_image.examine(model, processor, sample_image((64, 48)), "Where is it?", pruned)
