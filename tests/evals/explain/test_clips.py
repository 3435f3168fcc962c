"""Explaining a video: its frames, what is kept of each, and the files that show it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import command
from helpers.files.evals import saved, tiny_processor
from helpers.files.videos import grey, write_video
from helpers.models.video_models import qwen, qwen_processor
from helpers.tiny import tiny_llava
from matplotlib.figure import Figure
from PIL import Image

from tokenprune import SettingError
from tokenprune.evals.explain import filmstrip
from tokenprune.evals.explain.explain import explain
from tokenprune.evals.explain.outcomes import Explanation
from tokenprune.evals.reading.videos import Clip
from tokenprune.evals.run.setups import make_setups

STEPS = [2, 2, 3, 3, 4, 4, 5, 5]


def clip(scenes: list[int]) -> Clip:
    """Return frames of noise, in which equal numbers give equal frames."""
    made = [np.random.default_rng(seed).integers(0, 255, (32, 48, 3), dtype=np.uint8) for seed in scenes]
    return Clip([Image.fromarray(frame) for frame in made], [float(n) for n in range(len(scenes))], float(len(scenes)))


def explained(model: Any, processor: Any, shown: Clip, *strategies: str, keep_ratio: float = 0.5) -> Explanation:
    setups = make_setups(strategies, [keep_ratio], ["original"], baselines=[])
    return explain(model, processor, shown, "01 02 03", setups, rounds=0)


def kept_of_frames(explanation: Explanation, number: int = 1) -> list[int]:
    kept = explanation.outcomes[number].kept.left
    return [int(kept[frame.tokens].sum()) for frame in explanation.canvas.rasters]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune.evals.explain.explain.MAX_NEW_TOKENS", 4)


def test_pairs_of_frames_are_one() -> None:
    """Qwen2-VL merges pairs of frames: four equal frames and four others become two equal steps and two others."""
    found = explained(qwen(), qwen_processor(), clip([2, 2, 2, 2, 3, 3, 3, 3]), "evs", "random")
    assert [frame.tokens.shape for frame in found.canvas.rasters] == [(4, 6)] * 4
    assert kept_of_frames(found) == [24, 0, 24, 0]
    assert sum(kept_of_frames(found, 2)) == 48
    assert found.unpruned.kept.n_visual == 96
    shown = [np.asarray(frame.image).mean() for frame in found.canvas.rasters]
    assert shown[0] == shown[1] != shown[2]


def test_a_llava_gets_frames_as_images() -> None:
    found = explained(tiny_llava(), tiny_processor(), clip([2, 2, 3]), "evs", "fopru", keep_ratio=2 / 3)
    assert [frame.tokens.shape for frame in found.canvas.rasters] == [(6, 6)] * 3
    assert kept_of_frames(found) == [36, 0, 36]
    assert found.unpruned.kept.n_visual == 108


def test_nothing_to_compare_with() -> None:
    with pytest.raises(SettingError, match="Name a strategy"):
        explain(qwen(), qwen_processor(), clip(STEPS), "01", [], rounds=0)


def test_nothing_is_cut_off_and_setups_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long questions and names of strategies are wrapped; labels distinguish position IDs and budgets."""
    strategies = ["evs", "fastvid:segments=4,threshold=0.84,contextual=0.325,step=3,beta=0.625,layer=-2"]
    setups = make_setups(strategies, [0.5, 0.25], baselines=[])
    shown = clip(STEPS)
    square = replace(shown, frames=[frame.resize((48, 48)) for frame in shown.frames])
    found = explain(qwen(), qwen_processor(), square, "01", setups, rounds=0)
    object.__setattr__(found, "question", "Who costs $5 and not $6, " * 15)
    drawn: list[Figure] = []
    make = filmstrip._figure
    monkeypatch.setattr(filmstrip, "_figure", lambda *given: drawn.append(make(*given)) or drawn[-1])
    filmstrip.draw(found, tmp_path / "strip.png")
    filmstrip.animate(found, tmp_path / "strip.gif")
    for figure in drawn[:2]:
        titles = [axes.title for axes in figure.axes]
        rows = [text for axes in figure.axes for text in axes.texts]
        texts = [text for text in (*figure.texts, *titles, *rows) if text.get_text()]
        boxes = [text.get_window_extent() for text in texts]
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
        boxes = [box.shrunk(0.98, 0.6) for box in boxes]
        assert not [one for number, one in enumerate(boxes) if any(one.overlaps(two) for two in boxes[:number])]
    rows = [text.get_text() for axes in drawn[0].axes for text in axes.texts]
    names = [axes.get_title() for axes in drawn[1].axes]
    assert len(set(rows)) == len(set(names)) == 1 + len(setups)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved(tiny_llava(), tmp_path / "model")
    path = write_video(tmp_path / "a.mp4", [grey(level) for level in (20, 20, 200, 200)])
    asked = ["explain", path, "Where is it?", "--model", model, "--rounds", 0, "--frames", 4, "--keep-ratio", 0.5]
    assert command(*asked, "--output", tmp_path / "a.png", "--gif", tmp_path / "a.gif") == 0
    printed = capsys.readouterr().out
    for expected in ("Random", "EVS", "VidCom2", "72 of 144", f"Written to {tmp_path / 'a.gif'}"):
        assert expected in printed.replace("\n", "") or expected in printed
    assert "leave it out for a video" in command(*asked, "--box", 1, 2, 3, 4)
    assert "read more with --frames" in command(*asked[:-4], "--frames", 1, "--strategy", "fopru")
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg")
    of_image = ["explain", tmp_path / "a.jpg", *asked[2:7], *asked[9:]]
    assert "use --output for a PNG file" in command(*of_image, "--gif", tmp_path / "b.gif")
    (tmp_path / "b.mp4").write_text("no video")
    assert "b.mp4: not a complete video" in command("explain", tmp_path / "b.mp4", *asked[2:])
