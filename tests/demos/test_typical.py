"""The demos on patching, searching and typical images."""

import math
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from demos.test_demos import FOLDER, load
from helpers.files.evals import sample_image, saved, tiny_processor, write_refcoco
from helpers.files.rows import row
from helpers.files.search import deep_llava, write_scenes
from helpers.tiny import tiny_llava
from matplotlib import pyplot as plt
from PIL import Image

import tokenprune
from tokenprune.evals.dev.figures import typical
from tokenprune.evals.dev.figures.adapted import STRATEGY, adapted_setup, with_adapted
from tokenprune.evals.explain.explain import explain
from tokenprune.evals.models.bundled import MODEL, SCENES, SETTINGS
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.run.setups import make_setups
from tokenprune.evals.search import plot as search_plot
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.tasks.refcoco import RefCocoQuestion
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.strategies.settings import SettingsFile

#: By split, as answers are stored; in the set, splits alternate.
IDS = {"val": "ace", "test": "bdf"}


def result(name: str, keep_ratio: float, right: str) -> TaskResult:
    return row(name, "original", keep_ratio, {split: [float(id in right) for id in ids] for split, ids in IDS.items()})


def test_the_first_question_with_the_usual_outcome_of_every_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grid is right on four of the five questions that the unpruned model answers right, and Random on two."""
    stored = [result("unpruned", 1.0, "bcdef"), result("Grid", 0.25, "acdef")]
    write_refcoco(tmp_path)
    one, *_ = load_questions(tmp_path, ["rec"])
    asked = [replace(one, id=id, split="val" if id in "ace" else "test") for id in "abcdef"]
    monkeypatch.setattr(typical, "measured", lambda part: SimpleNamespace(rows=stored))
    monkeypatch.setattr(typical, "trained", lambda: [result("Random", 0.25, "ace")])
    monkeypatch.setattr(typical, "load_questions", lambda folder, tasks: asked)
    monkeypatch.setattr(typical, "SETTINGS", tmp_path / "none")
    assert asked[typical.typical(make_setups(["grid", "random"], [0.25], ["original"], baselines=[]))].id == "d"


def test_the_adapted_model_locates_what_the_model_without_the_adapter_does_not() -> None:
    """Question 9 is the first with an IoU of 0 without the adapter."""
    model, processor = load_model(str(MODEL), "auto")
    question = load_questions(SCENES, ["rec"], style=style_of(model.config, processor))[9]
    assert isinstance(question, RefCocoQuestion)
    (image,) = question.open_images()
    plain = make_setups([STRATEGY], [0.25], ["original"], baselines=[])
    setup = adapted_setup(0.25)
    without = explain(model, processor, image, question.text, plain, true_box=question.box, rounds=0)
    _, pruned, adapted = with_adapted(without, setup).outcomes
    assert adapted.setup.label == "FoPru cls -2 auto, adapted"
    assert adapted.kept.n_kept == pruned.kept.n_kept == 64
    assert pruned.iou == 0
    assert (adapted.iou or 0) > 0.5


# The lines that readers copy from `patch_your_model.py` work on their own, and the demo prints what they change.


def copied() -> str:
    _, after = (FOLDER / "patch_your_model.py").read_text(encoding="utf-8").split("# ==== copy from here ")
    lines, _ = after.split("# ==== to here ")
    return lines.partition("\n")[2]


def test_the_copied_lines_need_nothing_else() -> None:
    assert len([line for line in copied().splitlines() if line.strip()]) <= 20
    names: dict[str, Any] = {}
    exec(copied(), names)
    model: Any = tiny_llava()
    asked = model, tiny_processor(), sample_image(), "Where is it?"
    (_, slow, whole), (_, fast, part) = names["before_and_after"](*asked, tokenprune.Grid(keep_ratio=0.25))
    assert min(slow, fast) > 0
    text = model.config.text_config
    per_token = 2 * 4 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    assert whole - part == (36 - 9) * per_token
    assert names["ask"](*asked)[2] == whole  # the patch is gone


def test_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    load("patch_your_model").main(["--rounds", "1"])
    printed = capsys.readouterr().out
    unpruned, pruned, ratio = (
        [cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")
    )
    assert (unpruned[:2], pruned[:2]) == (["unpruned", "summer"], ["FoPru -2, 25%", "summer"])
    assert ratio[3] == "0.28x"
    assert 0 < float(ratio[2].removesuffix("x")) < 10


def ended(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Return the exit message of a demo that is called as a script."""
    monkeypatch.setattr("sys.argv", [name, *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return str(end.value)


def test_mistakes_are_a_sentence_before_the_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune.evals.models.loading.load_model", lambda *_: pytest.fail("loaded first"))
    said = ended("patch_your_model", monkeypatch, "--strategy", "fopro")
    assert said.startswith("Error: ")
    assert "Did you mean 'fopru'" in said
    said = ended("patch_your_model", monkeypatch, "--strategy", "downsample")
    assert said.startswith("Error: --strategy downsample: prunes nothing; name a strategy")


@pytest.mark.parametrize("name", ["block_diffusion", "robot_policy"])
def test_a_model_that_is_refused_is_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise tokenprune.UnsupportedError("refused")

    monkeypatch.setattr(tokenprune, "patch", refused)
    assert ended(name, monkeypatch) == "Error: refused"


# The plot of a search shows where in the search range the settings were found, and the demo draws it.


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
