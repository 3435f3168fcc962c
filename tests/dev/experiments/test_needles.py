"""Needles in a large image: the set, and the questions."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.files.evals import tiny_processor
from helpers.tiny import SIDE, tiny_llava
from PIL import Image

from tokenprune import SettingError, Zoom
from tokenprune.evals.dev.experiments.needles.ask import WAYS, Asker, best_tile, by_image, remembered
from tokenprune.evals.dev.experiments.needles.draw import draw_needles, write_needles
from tokenprune.evals.dev.tables.accuracy.needle_answers import Answer
from tokenprune.evals.dev.tables.accuracy.needles import report, stored
from tokenprune.evals.dev.train.version_1.scenes import CutOut
from tokenprune.evals.explain.zoom import draw_look
from tokenprune.evals.models.box_formats import BOX_FORMATS
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.tasks.refcoco import RefCocoQuestion
from tokenprune.zoom.pyramid import View, pyramid

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
    questions = load_questions(needles, style=STYLE)
    assert [question.task for question in questions] == ["rec"] * 16 + ["vqa"] * 16
    assert {question.split for question in questions} == {"60-107 px", "107-190 px", "190-337 px", "337-600 px"}
    write_needles(cutouts(), EARTH, tmp_path, 4)
    for file in ("instances.json", "questions.json", "annotations.json", "refs(tokenprune).json"):
        assert (tmp_path / file).read_bytes() == (needles / file).read_bytes()


def test_images_take_turns_in_size(needles: Path) -> None:
    groups = by_image(load_questions(needles, style=STYLE))
    assert [len(group) for group in groups] == [8] * 4
    assert len({group[0].split for group in groups}) == 4
    assert all(len({question.images for question in group}) == 1 for group in groups)


def test_the_best_tile_shows_most_of_the_needle(needles: Path) -> None:
    question = next(
        question for question in load_questions(needles, style=STYLE) if isinstance(question, RefCocoQuestion)
    )
    for level in pyramid(3200, 1800, 224):
        view = best_tile(level, question)
        middle = [(question.box[0] + question.box[2]) / 2, (question.box[1] + question.box[3]) / 2]
        assert np.all(np.abs(np.array(view.box[:2]) + level.span / 2 - middle) <= level.span / 2 + 107)


@pytest.fixture(scope="module")
def asker() -> Asker:
    model = tiny_llava("clip")
    model.config.prompt_style = "bundled"
    return Asker(model, tiny_processor(), Zoom(tiles=2, tile=SIDE * 4))


def test_every_way_is_asked_and_counted(asker: Asker, needles: Path) -> None:
    question: Any = load_questions(needles, style=STYLE)[0]
    answers = {answer.way: answer for answer in asker.answers(question, WAYS)}
    assert set(answers) == set(WAYS)
    levels = pyramid(3200, 1800, SIDE * 4)
    n_all = 36 * (1 + levels[-1].rows * levels[-1].columns)
    assert {answer.n_all for answer in answers.values()} == {n_all}
    coarsest, *finer = (level.rows * level.columns for level in levels)
    n_views = {way: answer.n_visual / 36 for way, answer in answers.items()}
    assert n_views["thumbnail"] == 1
    assert n_views["best tile"] == 1 + len(levels)
    assert n_views["coarsest"] == 1 + coarsest + 1  # the answer's view is encoded again
    assert n_views["exhaustive"] == 1 + coarsest + sum(finer) + 1
    n_deeper = len(answers["zoom"].reached)
    assert n_views["zoom"] == n_views["random"] == n_views["coarsest"] + 2 * n_deeper
    assert n_deeper >= 1
    assert answers["exhaustive"].reached == (True,) * len(finer)
    assert answers["thumbnail"].flops < answers["zoom"].flops < answers["zoom"].flops_all
    assert answers["random"].flops == answers["zoom"].flops


def test_zoom_answers_from_what_zoom_says(asker: Asker, needles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question: Any = load_questions(needles, style=STYLE)[1]
    shown: list[View] = []
    generate = asker._answer
    monkeypatch.setattr(asker, "_answer", lambda s, p, view: (shown.append(view), generate(s, p, view))[1])
    (_,) = asker.answers(question, ["zoom"])
    look = asker.zoom.look(asker.model, asker.processor, question.open_images()[0], question.text)
    assert tuple(shown) == look.views


def test_random_tiles_are_drawn_anew_and_the_same_again(
    asker: Asker, needles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only their number depends on attention."""
    questions: Any = load_questions(needles, style=STYLE)[:2]
    looked: list[list[tuple[View, ...]]] = []
    steps = asker._steps

    def recorded(way: str, *rest: Any) -> Any:
        found = steps(way, *rest)
        looked.append([step.views for step in found or ()][1:])
        return found

    monkeypatch.setattr(asker, "_steps", recorded)
    for question in (questions[0], questions[0], questions[1]):
        list(asker.answers(question, ["random"]))
    first, again, other = looked
    assert first == again
    assert first[0] != other[0]
    for views in first:
        assert len(set(views)) == 2


def test_each_view_is_encoded_once(asker: Asker, needles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers do not change, and the tower is restored."""
    _ = asker.costs
    questions: Any = by_image(load_questions(needles, style=STYLE))[0][:2]
    plain = [answer for question in questions for answer in asker.answers(question, WAYS[:-1])]
    core = asker.model.model
    encoded: list[bytes] = []
    encode = core.get_image_features

    def counted(pixel_values: Any, **settings: Any) -> Any:
        encoded.extend(row.numpy().tobytes() for row in pixel_values)
        return encode(pixel_values=pixel_values, **settings)

    monkeypatch.setattr(type(core), "get_image_features", lambda self, *args, **kwargs: counted(*args, **kwargs))
    with remembered(asker.model):
        again = [answer for question in questions for answer in asker.answers(question, WAYS[:-1])]
    assert "get_image_features" not in vars(core)
    assert plain == again
    assert len(encoded) == len(set(encoded)) < sum(answer.n_visual // 36 for answer in again)


def test_a_finished_question_is_not_looked_at_again(
    asker: Asker, needles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenprune.evals.dev.experiments.needles.ask.Zoom.look", None)
    assert list(asker.answers(load_questions(needles, style=STYLE)[0], [])) == []


def told(way: str, number: int, score: float, reached: tuple[bool, ...] = (), found: bool | None = None) -> Answer:
    return Answer(f"rec-{number}", "rec", "60-107 px", f"{number}.jpg", way, "", score, 10, 100, 1, 4, reached, found)


HEADER = {"model": "m", "dtype": "float32", "device": "cpu", "versions": {"torch": "2"}}


def test_tables_count_what_was_asked() -> None:
    zoom = [told("zoom", 1, 1.0, (True, False), True), told("zoom", 2, 0.0, (False,), False)]
    others = [told(way, number, 0.0) for way in ("thumbnail", "coarsest", "random") for number in (1, 2)]
    unfinished = [told("thumbnail", 3, 1.0)]
    text = report(HEADER, [*zoom, *others, *unfinished])
    assert "2 questions (REC 2, VQA 0) on 2 images" in text
    assert "| zoom | 10.0 % | 25.0 % | 50 [" in text
    assert "| thumbnail | 10.0 % | 25.0 % | 0 [" in text
    assert "| zoom - random | +50 [" in text
    assert "| zoom | examined, level 2 | 0 [" in text
    assert "| zoom | answered from | 50 [" in text


def test_parts_of_different_runs_are_not_put_together(tmp_path: Path) -> None:
    for name, dtype in (("a", "float32"), ("b", "bfloat16")):
        header = json.dumps({**HEADER, "dtype": dtype})
        (tmp_path / name).write_text(f"{header}\n{json.dumps(asdict(told('zoom', 1, 1.0)))}\n")
    with pytest.raises(SettingError, match="parts of one run"):
        stored([tmp_path / "a", tmp_path / "b"])


def test_the_image_shows_each_tile_where_it_is(asker: Asker, needles: Path) -> None:
    question: Any = load_questions(needles, style=STYLE)[0]
    (image,) = question.open_images()
    look = asker.zoom.look(asker.model, asker.processor, image, question.text)
    drawn = draw_look(image, look, width=800)
    assert drawn.size == (800, 450)
    view = next(view for view in look.steps[1].views if view.box[2] < 3200 and view.box[3] < 1800)
    left, top, *_ = (round(side / 4) for side in view.box)
    assert drawn.getpixel((left + 1, top + 20)) != image.resize((800, 450)).getpixel((left + 1, top + 20))


def test_a_killed_run_goes_on_where_it_was(needles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It resumes, but not with other settings."""
    from tokenprune.evals.dev.experiments.needles import ask as zoom

    model = tiny_llava("clip")
    model.config.prompt_style = "bundled"
    monkeypatch.setattr(zoom, "load_model", lambda name, dtype: (model, tiny_processor()))
    output = tmp_path / "zoom.jsonl"
    command = ["--needles", str(needles), "--ways", "thumbnail", "--output", str(output), "--limit"]
    zoom.main([*command, "1"])
    first = output.read_text()
    with output.open("a") as file:
        file.write('{"id": "half a li')
    zoom.main([*command, "2"])
    assert output.read_text().startswith(first)
    answers = [json.loads(line) for line in output.read_text().splitlines()[1:]]
    assert [answer["way"] for answer in answers] == ["thumbnail"] * 16
    assert len({answer["id"] for answer in answers}) == 16
    with pytest.raises(SettingError, match="Choose another --output"):
        zoom.main([*command, "2", "--tiles", "2"])
    part = [*command, "2", "--part", "1", "2", "--output", str(tmp_path / "part.jsonl")]
    zoom.main(part)
    later = [json.loads(line)["id"] for line in (tmp_path / "part.jsonl").read_text().splitlines()[1:]]
    assert later == [answer["id"] for answer in answers[8:]]
