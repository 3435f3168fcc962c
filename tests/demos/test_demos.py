"""The demos run, and their images show something."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers.by_path import module_at
from helpers.files.evals import sample_image, saved
from helpers.tiny import tiny_llava
from PIL import Image

from tokenprune.errors import SettingError

FOLDER = Path(__file__).parents[2] / "demos"
#: The names of the demos, without the shared module and the script that runs them all.
DEMOS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("_common", "run_all"))

#: Demos that make a tiny model with random weights, because no small checkpoint of its kind exists.
RANDOM = ("block_diffusion", "robot_policy")


def load(name: str) -> ModuleType:
    """Return the script as a new module, which a test may change."""
    return module_at(FOLDER / f"{name}.py")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit answers: a random model does not stop on its own."""
    monkeypatch.setattr("tokenprune.evals.explain.explain.MAX_NEW_TOKENS", 4)
    monkeypatch.setattr("tokenprune.evals.explain.page.SLIDER", (0.5,))


@pytest.fixture
def model(tmp_path: Path) -> str:
    return saved(tiny_llava(), tmp_path / "model")


def panels(path: Path, n: int) -> list[np.ndarray]:
    """Return the panels in the first row of a figure file, without texts and scores."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    height = pixels.shape[0]
    return np.array_split(pixels[height // 4 : 2 * height // 5], n, axis=1)


def test_demos_are_short() -> None:
    assert DEMOS
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text().splitlines()) < 80, path


#: Runs scripts like `python SCRIPT --help`, but in one process, which loads torch only once.
RUN = """
import runpy, sys
from contextlib import suppress
here, *names = sys.argv[1:]
for name in names:
    print("script", name)
    sys.path[0], sys.argv = here, [f"{name}.py", "--help"]
    with suppress(SystemExit):
        runpy.run_path(f"{here}/{name}.py", run_name="__main__")
"""


def test_demos_are_scripts() -> None:
    """They find their shared module without tokenprune's help, and every option has a help text."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(FOLDER.parent)
    command = [sys.executable, "-c", RUN, str(FOLDER), *DEMOS]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    helps = [one.split("\n", 1) for one in shown.split("script ")[1:]]
    assert [name for name, _ in helps] == DEMOS
    for name, text in helps:
        assert text.startswith(f"usage: {name}.py ")
        assert ("--model PATH" in text) == (name not in RANDOM), name


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("name", "read"), [("block_diffusion", 0.25), ("robot_policy", 0.25)])
def test_demos_with_random_weights(name: str, read: float, capsys: pytest.CaptureFixture[str]) -> None:
    """They print that the weights are random, and what the steps have read."""
    load(name).main([])
    printed = capsys.readouterr().out
    assert printed.startswith("The weights are random")
    reports = [line for line in printed.splitlines() if "denoising steps" in line and " read " in line]
    assert len(reports) == (2 if name == "block_diffusion" else 3)
    assert f"keep_ratio={read}" in printed


def test_compare_kept_tokens(tmp_path: Path, model: str) -> None:
    sample_image((64, 48)).save(tmp_path / "a.jpg")
    output = tmp_path / "new" / "kept.png"
    arguments = [str(tmp_path / "a.jpg"), "Where is it?", "--box", "30", "10", "45", "30", "--model", model]
    strategies = ["--strategy", "random", "grid", "fopru", "--html", str(tmp_path / "kept.html")]
    load("compare_kept_tokens").main([*arguments, *strategies, "--output", str(output)])
    unpruned, *pruned = shown = panels(output, 4)
    assert unpruned.std() > 20
    for panel in pruned:
        assert panel.mean() < 0.9 * unpruned.mean()  # three quarters of the patches are dark
    assert len({panel[:, 40:260].tobytes() for panel in shown}) == 4
    assert (tmp_path / "kept.html").read_text().count("data:image/jpeg") == 1


def test_options_without_effect(tmp_path: Path) -> None:
    sample_image((64, 48)).save(tmp_path / "a.jpg")
    with pytest.raises(SettingError, match="--box has no effect without IMAGE"):
        load("compare_kept_tokens").main(["--box", "1", "2", "3", "4"])
    with pytest.raises(SettingError, match="--number has no effect with IMAGE"):
        load("large_image").main([str(tmp_path / "a.jpg"), "Where is it?", "--number", "1"])
