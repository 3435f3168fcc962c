"""The demos run, and their pictures show something."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from evals_files import picture, saved, tiny_processor, write_refcoco
from PIL import Image
from tiny import tiny_llava

from tokenprune.evals import kept_tokens
from tokenprune.evals.configurations import configurations

DEMOS = sorted((Path(__file__).parent.parent / "demos").glob("*.py"))
N_PANELS = 5


def load(name: str) -> ModuleType:
    (path,) = (path for path in DEMOS if path.stem == name)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(tmp_path: Path) -> str:
    return saved(tiny_llava(), tmp_path / "model")


def panels(path: Path) -> list[np.ndarray]:
    """The panels of a written figure, titles and legend cut away."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    height = pixels.shape[0]
    return np.array_split(pixels[height // 3 : 4 * height // 5], N_PANELS, axis=1)


def test_demos_are_short() -> None:
    assert DEMOS
    for path in DEMOS:
        assert len(path.read_text().splitlines()) < 80, path


def test_compare_kept_tokens(tmp_path: Path, model: str) -> None:
    picture((64, 48)).save(tmp_path / "a.jpg")
    output = tmp_path / "new" / "kept.png"
    arguments = [str(tmp_path / "a.jpg"), "Where is it?", "--box", "30", "10", "45", "30", "--model", model]
    load("compare_kept_tokens").main([*arguments, "--output", str(output)])
    shown = panels(output)
    unpruned, *pruned = shown
    assert unpruned.shape[0] > 150
    assert unpruned.std() > 20
    for panel in pruned:
        assert panel.mean() < 0.9 * unpruned.mean()  # three quarters of the patches are dark
    different = {panel[:, :300].tobytes() for panel in shown}
    assert len(different) == N_PANELS


def test_compare_on_a_scene(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_refcoco(tmp_path)
    demo = load("compare_kept_tokens")
    monkeypatch.setattr(demo, "SCENES", tmp_path)
    demo.main(["--model", model, "--output", str(tmp_path / "kept.png")])
    assert panels(tmp_path / "kept.png")[0].std() > 20


def test_kept_patches_are_clear_and_dropped_ones_dark() -> None:
    model: Any = tiny_llava()
    grid = configurations(["grid"], [0.25])[1]
    look = kept_tokens.look(model, tiny_processor(), grid, picture(), "00 01")
    assert look.dropped.shape == (6, 6)
    assert look.n_kept == 9
    assert look.pixels.shape == (24, 24, 3)
    figure = kept_tokens_figure(
        kept_tokens.Look(
            "Grid", np.full((24, 24, 3), 255, np.uint8), look.dropped, "00 00 99 99", (0.005, 0.005, 0.995, 0.995)
        )
    )
    side = figure.shape[0] // 6
    for row, column in np.ndindex(6, 6):
        centre = figure[row * side + side // 2, column * side + side // 2]
        assert (centre.mean() < 128) == look.dropped[row, column], (row, column)


def kept_tokens_figure(look: kept_tokens.Look) -> np.ndarray:
    """The pixels of one panel that fills its figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 3), dpi=100)
    canvas = FigureCanvasAgg(figure)
    kept_tokens.draw(figure.add_axes((0, 0, 1, 1)), look)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
