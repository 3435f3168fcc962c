"""The plot of a search shows where in the search range the settings were found, and the demo draws it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from demos.test_demos import load
from helpers.files.evals import saved
from helpers.files.search import deep_llava, scenes, searched, write_scenes
from matplotlib import pyplot as plt
from PIL import Image

from tokenprune.evals.models.bundled import SETTINGS
from tokenprune.evals.search import plot as search_plot
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.strategies.settings import SettingsFile

FILES = sorted(SETTINGS.glob("*.json"))


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
    layers, sides = file.model["layers"], file.search["box"]
    best = search_plot.places(file.search, layers)[file.search["objective"]["best_trial"]]
    assert best["threshold"] == pytest.approx(file.settings["threshold"] / sides["threshold"][1])
    assert best["cell"] == pytest.approx(math.log(file.settings["cell"]) / math.log(sides["cell"][1]))  # from one token
    assert best["alpha"] == pytest.approx((1 + file.settings["alpha"]) / 2)
    assert best["first"] == pytest.approx((file.settings["first"] - 0.25) / 0.125)
    figure = search_plot.figure(file)
    _, box, schedule = figure.axes
    stars = [line for line in box.lines if line.get_marker() == "*" and len(np.asarray(line.get_xdata()))]
    assert [float(np.asarray(line.get_xdata())[0]) for line in stars] == [best[name] for name in search_plot.VARIABLES]
    assert {text.get_text() for text in box.texts} >= set(search_plot.VARIABLES.values())
    found = file.make()
    assert isinstance(found, VFlowOpt)
    counts = search_plot.tokens_per_layer(found, layers, 256)
    assert [text.get_text() for text in schedule.texts] == [str(count) for count in dict.fromkeys(counts)]
    plt.close(figure)


def test_tokens_per_layer() -> None:
    strategy = VFlowOpt(keep_ratio=0.25, first=0.375, second=0.5)
    assert search_plot.tokens_per_layer(strategy, 6, 100) == [38, 38, 19, 19, 19, 19]
    assert search_plot.tokens_per_layer(VFlowOpt(keep_ratio=0.25, progressive=False), 4, 100) == [25] * 4


def test_demo(tmp_path: Path) -> None:
    model = saved(deep_llava(), tmp_path / "model")
    write_scenes(tmp_path / "scenes")
    output = tmp_path / "new" / "search.png"
    options = ["--model", model, "--data", str(tmp_path / "scenes"), "--trials", "3", "--questions", "2"]
    load("vflow_search").main([*options, "--seed", "7", "--output", str(output)])
    assert SettingsFile.read(output.with_suffix(".json")).search["seed"] == 7
    pixels = np.asarray(Image.open(output).convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 500
    for half in np.array_split(pixels, 2, axis=1):
        orange = (abs(half - (0xD5, 0x5E, 0)) < 40).all(-1)
        assert orange.sum() > 200  # the best value so far, and the schedule found


def test_the_plot_shows_the_search(tmp_path: Path) -> None:
    questions = scenes(tmp_path / "scenes")
    for trials in (1, 4):
        searched(questions, tmp_path / "settings.json", trials)
        search_plot.draw(tmp_path / "settings.json", tmp_path / f"{trials}.png")
    one, four = (np.asarray(Image.open(tmp_path / f"{trials}.png")) for trials in (1, 4))
    assert one.shape == four.shape
    assert (one != four).any(-1).mean() > 0.002
    (tmp_path / "plain.json").write_text('{"strategy": "vflowopt", "settings": {}}')
    with pytest.raises(ValueError, match=r"plain\.json: no \"search\""):
        search_plot.draw(tmp_path / "plain.json", tmp_path / "plain.png")
