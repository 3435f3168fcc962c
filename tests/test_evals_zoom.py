"""Needles in a large picture: the set, and what is asked of it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evals_files import tiny_processor
from PIL import Image
from tiny import SIDE, tiny_llava

from tokenprune import Zoom
from tokenprune.evals.boxes import BOX_FORMATS
from tokenprune.evals.loading import load_samples
from tokenprune.evals.styles import Style
from tokenprune.evals.tasks.refcoco import RecSample
from tokenprune.evals.train.needles import draw_needles, write_needles
from tokenprune.evals.train.scenes import CutOut
from tokenprune.evals.zoom import Asker, RandomZoom, best_tile, spread
from tokenprune.evals.zoom_answers import Answer, tables
from tokenprune.pyramid import pyramid
from tokenprune.zoom import Step

STYLE = Style(BOX_FORMATS["bundled"], instructions=False)
EARTH = Image.new("RGB", (3200, 1800), "navy")
NOUNS = "dog", "badger", "apple", "ball", "horse"


def cutouts() -> list[CutOut]:
    return [CutOut(noun, f"{noun}.png", Image.new("RGBA", (40, 30), "red")) for noun in NOUNS]


@pytest.fixture(scope="module")
def needles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("needles")
    write_needles(cutouts(), EARTH, folder, 4)
    return folder


def test_needles_are_as_large_as_said_and_apart() -> None:
    scene = draw_needles(random.Random(0), cutouts(), EARTH, 60, 107)
    assert len({thing.noun for thing in scene.things}) == 4
    for thing in scene.things:
        x1, y1, x2, y2 = thing.box
        assert 60 <= max(x2 - x1, y2 - y1) <= 107
        assert (scene.pixels[y1:y2, x1:x2] == (255, 0, 0)).all()
    red = (scene.pixels == (255, 0, 0)).all(-1).sum()
    assert red == sum(thing.area for thing in scene.things)


def test_the_set_is_read_by_the_loaders_and_the_same_again(needles: Path, tmp_path: Path) -> None:
    samples = load_samples(needles, style=STYLE)
    assert [sample.task for sample in samples] == ["rec"] * 16 + ["vqa"] * 32
    assert {sample.split for sample in samples} == {"60-107 px", "107-190 px", "190-337 px", "337-600 px"}
    write_needles(cutouts(), EARTH, tmp_path, 4)
    for file in ("instances.json", "questions.json", "annotations.json", "refs(tokenprune).json"):
        assert (tmp_path / file).read_bytes() == (needles / file).read_bytes()


def test_the_first_questions_are_of_all_kinds(needles: Path) -> None:
    first = spread(load_samples(needles, style=STYLE))[:8]
    assert len({(sample.task, sample.split) for sample in first}) == 8


def test_the_best_tile_shows_most_of_the_needle(needles: Path) -> None:
    sample = next(sample for sample in load_samples(needles, style=STYLE) if isinstance(sample, RecSample))
    for level in pyramid(3200, 1800, 224):
        view = best_tile(level, sample)
        middle = [(sample.box[0] + sample.box[2]) / 2, (sample.box[1] + sample.box[3]) / 2]
        assert np.all(np.abs(np.array(view.box[:2]) + level.span / 2 - middle) <= level.span / 2 + 107)


def test_every_way_is_asked_and_counted(needles: Path) -> None:
    model, processor = tiny_llava("clip"), tiny_processor()
    model.config.prompt_style = "bundled"
    asker = Asker(model, processor, Zoom(tiles=2, tile=SIDE * 4))
    sample: Any = load_samples(needles, style=STYLE)[0]
    answers = {way: asker.ask(way, sample) for way in ("thumbnail", "zoom", "random", "best tile")}
    levels = pyramid(3200, 1800, SIDE * 4)
    n_all = 36 * (1 + levels[-1].rows * levels[-1].columns)
    assert {answer.n_all for answer in answers.values()} == {n_all}
    assert answers["thumbnail"].n_visual == 36
    assert answers["best tile"].n_visual == 36 * (1 + len(levels))
    # The thumbnail and the coarsest level, then two tiles a level, then the answer.
    coarsest = 2 + levels[0].rows * levels[0].columns
    assert answers["zoom"].n_visual in [36 * (coarsest + 2 * n) for n in range(1, len(levels))]
    assert len(answers["zoom"].reached) == (answers["zoom"].n_visual // 36 - coarsest) // 2
    assert answers["thumbnail"].flops < answers["zoom"].flops < answers["zoom"].flops_all


def test_random_tiles_are_the_same_again_and_differ_by_seed() -> None:
    level = pyramid(5400, 2700, 224)[-1]
    step = Step((), ())
    drawn = [RandomZoom(seed=seed).choose(step, level) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == Zoom().tiles


def test_tables_count_what_was_asked() -> None:
    def answer(way: str, split: str, score: float, reached: tuple[bool, ...]) -> Answer:
        return Answer("rec-1", "rec", split, way, "", score, 10, 100, 1, 4, reached)

    text = tables([answer("zoom", "s", 1.0, (True, False)), answer("zoom", "s", 0.0, (False,))])
    assert "| zoom | 10.0 % | 25.0 % | 50 [" in text
    assert text.count("n = 2") == 3  # the size, all sizes, and the first level
    assert "| zoom | 2 | 0 [" in text


def test_answers_stand_in_the_file_as_json(needles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run goes on where it was, and not with other settings."""
    from tokenprune.evals import zoom

    model = tiny_llava("clip")
    model.config.prompt_style = "bundled"
    monkeypatch.setattr(zoom, "load_model", lambda name: (model, tiny_processor()))
    output = tmp_path / "zoom.jsonl"
    command = ["--needles", str(needles), "--ways", "thumbnail", "--output", str(output), "--limit"]
    zoom.main([*command, "2"])
    first = output.read_text()
    zoom.main([*command, "3"])
    assert output.read_text().startswith(first)
    assert [json.loads(line)["way"] for line in output.read_text().splitlines()[1:]] == ["thumbnail"] * 3
    with pytest.raises(ValueError, match="choose another --output"):
        zoom.main([*command, "3", "--tiles", "2"])
