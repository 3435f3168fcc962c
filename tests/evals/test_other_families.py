"""What the commands say of models that mark images, cut them and put them together in other ways than LLaVA.

Every model is loaded from a folder, with the processor of its family.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.files.evals import sample_image
from helpers.models.processors import saved_family
from helpers.served.gemma import save_gemma3, save_gemma4
from helpers.served.models import save_internvl, save_llava_next, save_llava_onevision

from tokenprune.evals.explain import sheet
from tokenprune.evals.explain.explain import explain
from tokenprune.evals.explain.outcomes import Explanation
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.run.setups import make_setups

#: Width and height of the images that questions are about, one after the other.
SIZES = {"wide": (120, 60), "tall": (50, 110), "small": (30, 20)}
OWN = ("janus", "molmo2", "paligemma", "perception-lm")
SAVED: dict[str, Callable[[Path], Any]] = {
    "gemma3": save_gemma3,
    "gemma4": save_gemma4,
    "internvl": save_internvl,
    "llava-next": save_llava_next,
    "llava-onevision": save_llava_onevision,
    **{name: partial(saved_family, name) for name in OWN},
}


#: Of PaliGemma's processor.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation does")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model goes on answering until it is told to stop."""
    monkeypatch.setattr("tokenprune.evals.explain.explain.MAX_NEW_TOKENS", 3)


def saved(name: str, folder: Path) -> str:
    SAVED[name](folder / "model")
    return str(folder / "model")


def explained(name: str, folder: Path, *strategies: str) -> Explanation:
    model, processor = load_model(saved(name, folder))
    image = sample_image(SIZES["wide"], (0, 0, 59, 59))
    setups = make_setups(strategies, [0.5], ["original"], baselines=[])
    return explain(model, processor, image, "w1 w2", setups, rounds=0)


@pytest.mark.parametrize("kind", sorted(SAVED.keys() - {"molmo2"}))
def test_what_is_kept_is_drawn_on_the_image(kind: str, tmp_path: Path) -> None:
    told = explained(kind, tmp_path, "random")
    unpruned, pruned = (outcome.kept for outcome in told.outcomes)
    assert unpruned.n_visual == pruned.n_visual > 1
    placed = np.concatenate([raster.tokens.flatten() for raster in told.canvas.rasters])
    assert len(set(placed)) == len(placed)
    assert len(placed) == unpruned.n_visual or kind.startswith("llava")  # whose newline tokens have no place
    sheet.draw(told, tmp_path / "kept.png")
