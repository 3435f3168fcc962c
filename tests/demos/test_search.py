"""The picture of a search shows where in its box the settings were found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from tokenprune.evals.dev.tables.vflowopt import settings_files
from tokenprune.evals.models.bundled import SETTINGS
from tokenprune.evals.search import plot as search_plot
from tokenprune.strategies.settings import SettingsFile

FILES = [file.path for file in settings_files()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_trial_is_in_the_box(path: Path) -> None:
    file = SettingsFile.read(path)
    found = search_plot.places(file.search, file.model["layers"])
    assert len(found) == len(file.search["trials"])
    for trial in found:
        assert set(trial) == set(file.search["box"])
        assert all(-1e-6 <= place <= 1 + 1e-6 for place in trial.values())


def test_the_best_is_where_it_was_found() -> None:
    file = SettingsFile.read(SETTINGS / "searched_25.json")
    best = search_plot.places(file.search, 6)[file.search["objective"]["best_trial"]]
    assert (best["threshold"], best["cell"]) == (0, 0)  # at the edge
    assert best["alpha"] == pytest.approx((1 + file.settings["alpha"]) / 2)
    assert best["first"] == pytest.approx((file.settings["first"] - 0.25) / 0.125)
    figure = search_plot.figure(file)
    _, box, schedule = figure.axes
    stars = [line for line in box.lines if line.get_marker() == "*" and len(np.asarray(line.get_xdata()))]
    assert [float(np.asarray(line.get_xdata())[0]) for line in stars] == [best[name] for name in search_plot.VARIABLES]
    assert {text.get_text() for text in box.texts} >= set(search_plot.VARIABLES.values())
    assert [text.get_text() for text in schedule.texts] == ["78", "71", "43"]
    plt.close(figure)
