"""Scenes that are drawn once for all tests of the training."""

import random

import pytest
from helpers.files.discs import discs_on_gray

from tokenprune.evals.dev.train.scenes.assets import Assets
from tokenprune.evals.dev.train.scenes.draw import Scene, draw_scene
from tokenprune.evals.dev.train.scenes.grids import WEIGHTS


@pytest.fixture(scope="session")
def assets() -> Assets:
    return discs_on_gray()


@pytest.fixture(scope="session")
def scenes(assets: Assets) -> list[Scene]:
    rng = random.Random(1)
    grids = list(WEIGHTS)
    return [draw_scene(rng, assets, grids[i % len(grids)], 6) for i in range(150)]
