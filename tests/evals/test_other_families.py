"""The commands on models that mark, cut and assemble images differently from LLaVA.

Every model is loaded from a folder, with its family's processor.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from helpers.commands import command
from helpers.files.evals import sample_image
from helpers.models.processors import saved_family
from helpers.served.stored import stored
from rich.console import Console

from tokenprune.errors import SettingError
from tokenprune.evals.explain import sheet
from tokenprune.evals.explain.explain import explain
from tokenprune.evals.explain.outcomes import Explanation
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.run.downsample import at_size
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.run.setups import make_setups
from tokenprune.evals.storage.answers import Answer
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tune.costs import CostMeter

#: Width and height of the images of the questions, in order.
SIZES = {"wide": (120, 60), "tall": (50, 110), "small": (30, 20)}
OWN = ("idefics2", "janus", "molmo2", "paligemma", "perception-lm")
SAVED: dict[str, Callable[[Path], Any]] = {
    "gemma3": stored("gemma3"),
    **({"gemma4": stored("gemma4")} if hasattr(transformers, "Gemma4Config") else {}),
    "internvl": stored("internvl"),
    "llava-next": stored("llava-next"),
    "llava-onevision": stored("llava-onevision"),
    **{name: partial(saved_family, name) for name in OWN},
}
#: Families in addition to those that are pruned and drawn.
OTHERS = {"qwen2.5-vl": stored("qwen2_5_vl")}


#: A warning of PaliGemma's processor.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation does")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit answers: a random model does not stop on its own."""
    monkeypatch.setattr("tokenprune.evals.explain.explain.MAX_NEW_TOKENS", 3)
    monkeypatch.setattr("tokenprune.evals.explain.page.SLIDER", ())


def saved(name: str, folder: Path) -> str:
    (SAVED | OTHERS)[name](folder / "model")
    return str(folder / "model")


def questions(folder: Path, together: bool = True) -> Path:
    """Write questions about one image each and, if `together`, one about all images."""
    folder.mkdir()
    for name, size in SIZES.items():
        sample_image(size, (5, 5, size[0] // 2, size[1] // 2)).save(folder / f"{name}.png")
    files = [f"{name}.png" for name in SIZES]
    about = [*files, *([files] if together else [])]
    lines = [{"image": image, "question": "w1 w2", "answer": "w3"} for image in about]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def asked(name: str, folder: Path, **settings: Any) -> dict[str, list[Answer]]:
    """Return the answers of a run by strategy, in the order of the questions."""
    given: dict[str, Any] = {"strategies": ["divprune"], "keep_ratios": [0.5], "position_ids": ["original"], **settings}
    data = questions(folder / "set", together=name != "perception-lm")
    evaluate(saved(name, folder), output=folder / "run", data=data, console=Console(quiet=True), **given)
    found: dict[str, list[Answer]] = {}
    for answer in sorted(RunFolder(folder / "run").answers().values(), key=lambda one: one.id):
        found.setdefault(answer.strategy, []).append(answer)
    return found


def explained(name: str, folder: Path, *strategies: str) -> Explanation:
    model, processor = load_model(saved(name, folder))
    image = sample_image(SIZES["wide"], (0, 0, 59, 59))
    setups = make_setups(strategies, [0.5], ["original"], baselines=[])
    return explain(model, processor, image, "w1 w2", setups, rounds=0)


@pytest.mark.parametrize("kind", SAVED)
def test_a_run_with_all_defaults_counts_what_pruning_counts(kind: str, tmp_path: Path) -> None:
    """There is no downsampling baseline: these models cut images into tiles, merge patches, or take any size."""
    found = asked(kind, tmp_path)
    assert set(found) == {"unpruned", "DivPrune", "Random"}
    assert [one.n_visual for one in found["unpruned"]] == [one.n_visual for one in found["Random"]]
    for answer, pruned in zip(found["unpruned"], found["Random"], strict=True):
        assert answer.error is None
        assert answer.n_kept == answer.n_visual > 1
        assert bool(pruned.kept) == (kind != "idefics2")  # its tokens have no place to draw


@pytest.mark.parametrize(
    ("kind", "size", "n_visual"),
    [("qwen2.5-vl", (112, 112), (18, 18, 20)), ("internvl", (168, 168), (45,) * 3)],
    ids=["pixels", "tiles"],
)
def test_a_size_fixes_how_many_pixels_or_tiles_images_of_any_shape_have(
    kind: str, size: tuple[int, int], n_visual: tuple[int, ...], tmp_path: Path
) -> None:
    found = asked(kind, tmp_path, baselines=["unpruned"], image_size=size)
    for of_strategy in found.values():
        alone = [one.n_visual for one in of_strategy if one.n_visual < 50]
        assert sorted(alone) == sorted(n_visual)
    with pytest.raises(SettingError, match=f"--image-size {size[0]} {size[1]}"):
        at_size(load_model(str(tmp_path / "model"))[1], size[0] + 1, size[1])


@pytest.mark.parametrize("kind", ["gemma3", "llava-next"])
def test_shrinking_that_is_asked_for_is_refused(kind: str, tmp_path: Path) -> None:
    data = questions(tmp_path / "set")
    of = ["eval", "--model", saved(kind, tmp_path), "--data", data, "--output", tmp_path / "run"]
    for more in (["--baselines", "downsample"], ["--image-size", 56, 56]):
        said = command(*of, *more)
        assert "does not make one visual token of each patch of an image" in said
        assert said.endswith("leave out --image-size and the baseline downsample")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", SAVED)
def test_what_is_kept_is_drawn_on_the_image(kind: str, tmp_path: Path) -> None:
    told = explained(kind, tmp_path, "random")
    unpruned, pruned = (outcome.kept for outcome in told.outcomes)
    assert unpruned.n_visual == pruned.n_visual > 1
    placed = np.concatenate([raster.tokens.flatten() for raster in told.canvas.rasters])
    assert len(set(placed)) == len(placed)
    without = {"idefics2": pruned.n_visual, "llava-next": 4, "llava-onevision": 6}  # no place: newlines, or all
    assert len(placed) == unpruned.n_visual - without.get(kind, 0)
    sheet.draw(told, tmp_path / "kept.png")


@pytest.mark.parametrize(
    ("kind", "asked", "said"),
    [
        ("qwen2.5-vl", ["FoPru", "Grid", "Mosaic"], "fopru instead of fopru:layer=-2: layer=-2 of this vision tower"),
        ("idefics2", ["FoPru -2"], "Leaving out grid: Grid(keep_ratio=0.5) needs the rows and columns of visual"),
    ],
    ids=["windows", "resampler"],
)
def test_default_strategies_are_those_that_the_model_can_be_pruned_with(
    kind: str, asked: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = questions(tmp_path / "set"), saved(kind, tmp_path)
    more = ["--keep-ratio", 0.5, "--limit", 1, "--output", tmp_path / "run"]
    assert command("eval", "--model", model, "--data", data, *more) == 0
    assert {one.strategy for one in RunFolder(tmp_path / "run").answers().values()} == {*asked, "Random", "unpruned"}
    assert said in capsys.readouterr().out
    of = ["explain", data / "wide.png", "w1", "--model", model, "--keep-ratio", 0.5, "--rounds", 0]
    assert command(*of, "--html", tmp_path / "kept.html") == 0
    shown = capsys.readouterr().out
    assert shown.count("FoPru") >= shown.count("Mosaic") >= 1
    assert said.startswith("fopru") == ("fopru instead of fopru:mode=rank,layer=-2: layer=-2 of this" in shown)
    named = command("eval", "--model", model, "--data", data, "--strategy", "grid", "fopru:layer=-2", *more)
    assert named.startswith("Error: ")  # refused as a usage error


def test_tiles_are_those_of_the_prompt(tmp_path: Path) -> None:
    """InternVL's processor cuts images into tiles even if its image processor alone does not."""
    folder = Path(saved("internvl", tmp_path))
    settings = json.loads((folder / "processor_config.json").read_text())
    settings["image_processor"]["crop_to_patches"] = False
    (folder / "processor_config.json").write_text(json.dumps(settings))
    model, processor = load_model(str(folder))
    setups = make_setups(["random"], [0.5], ["original"], baselines=[])
    image = sample_image(SIZES["wide"], (0, 0, 59, 59))  # the left half
    told = explain(model, processor, image, "w1 w2", setups, rounds=0)
    shown = [np.asarray(raster.image)[..., 0].mean() for raster in told.canvas.rasters]
    assert shown[1] > 200 > shown[0] == pytest.approx(shown[3], abs=3)  # the left tile, then the image and the overview
    assert shown[2] < 60


def test_an_overview_and_a_canvas_without_newline_tokens_show_the_whole_image(tmp_path: Path) -> None:
    told = explained("molmo2", tmp_path, "random")
    overview, canvas = told.canvas.rasters
    assert (overview.tokens.shape, canvas.tokens.shape) == ((3, 3), (3, 7))
    assert overview.window == canvas.window == (0.0, 0.0, 120.0, 60.0)


def test_an_image_that_is_padded_is_drawn_with_its_padding(tmp_path: Path) -> None:
    (raster,) = explained("janus", tmp_path, "random").canvas.rasters
    assert raster.window == (0.0, -30.0, 120.0, 90.0)


def test_images_that_a_processor_does_not_put_together_are_asked_about_one_by_one(tmp_path: Path) -> None:
    found = asked("perception-lm", tmp_path, baselines=["unpruned"])
    assert len({one.n_visual for one in found["unpruned"]}) > 1
    assert [len(of_strategy) for of_strategy in found.values()] == [3, 3]


@pytest.mark.parametrize("kind", ["gemma3", "molmo2", "paligemma"])
def test_costs_are_those_of_a_prompt_alone(kind: str, tmp_path: Path) -> None:
    """PaliGemma's processor adds labels to every prompt, for which the model would compute logits of the whole
    prompt."""
    model, processor = load_model(saved(kind, tmp_path))
    (setup,) = make_setups(["random"], [0.3], ["original"], baselines=[])
    meter = CostMeter(model, processor, load_questions(questions(tmp_path / "set")), "flops")
    assert 0.1 < meter.relative(setup) < 1


def test_a_model_that_cannot_be_asked_says_so(tmp_path: Path) -> None:
    folder = Path(saved("paligemma", tmp_path))
    (folder / "chat_template.jinja").unlink()
    data = questions(tmp_path / "set")
    for of in (["eval", "--data", data, "--output", tmp_path / "run"], ["explain", data / "wide.png", "w1"]):
        said = command(*of, "--model", folder)
        assert "PaliGemmaProcessor has no chat template, which says how to prompt its model. Write one to " in said
