"""What the bundled model is trained on: its scenes, their questions, and the split."""

import random
from collections import Counter
from pathlib import Path

import numpy as np

from tokenprune.evals.dev.train.scenes.ask import vqa_questions
from tokenprune.evals.dev.train.scenes.assets import (
    HELD_OUT_BACKGROUNDS,
    HELD_OUT_FONTS,
    TRAINING_BACKGROUNDS,
    TRAINING_FONTS,
    Assets,
    background_files,
)
from tokenprune.evals.dev.train.scenes.draw import draw_scene
from tokenprune.evals.dev.train.vocabulary.nouns import nouns


def test_boxes_are_the_extent_of_the_pixels(assets: Assets) -> None:
    """At 24 x 24 patches a scene is not shrunk, so a box ends exactly where its thing's pixels do."""
    rng = random.Random(3)
    for kind in ("mixed", "count", "small", "text"):
        scene = draw_scene(rng, assets, (24, 24), 5, kind, odd=False)
        height, width = scene.pixels.shape[:2]
        marked = np.abs(scene.pixels.astype(int) - np.median(scene.pixels, (0, 1))).max(2) > 30
        for thing in scene.things:
            x1, y1, x2, y2 = (round(edge * side) for edge, side in zip(thing.box, (width, height) * 2, strict=True))
            rows, columns = np.where(marked[y1:y2, x1:x2])
            assert rows.min() <= 1
            assert rows.max() >= y2 - y1 - 2
            assert columns.min() <= 1
            assert columns.max() >= x2 - x1 - 2
            marked[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = False
        assert not marked.any(), "pixels of a thing lie outside of every box"


def test_nothing_is_on_both_sides_of_the_split() -> None:
    files = Counter(file for noun in nouns() for file in noun.files)
    assert max(files.values()) == 1
    held_out = [noun for noun in nouns() if noun.held_out]
    assert all(noun.held_out < set(noun.files) for noun in held_out)
    assert {noun.group for noun in held_out} == {noun.group for noun in nouns()}
    assert len(held_out) > 400
    assert not set(HELD_OUT_BACKGROUNDS) & set(TRAINING_BACKGROUNDS)
    assert not set(HELD_OUT_FONTS) & set(TRAINING_FONTS)
    seen, unseen = (set(background_files(Path(), held_out=side)) for side in (False, True))
    assert not seen & unseen


def test_answers_are_true(assets: Assets) -> None:
    rng = random.Random(7)
    for _ in range(60):
        scene = draw_scene(rng, assets, (16, 16), 6)
        names = Counter(thing.noun for thing in scene.things)
        plurals = {noun.plural: noun.name for noun in nouns()}
        for question in vqa_questions(rng, scene, nouns()):
            words = question.text.removesuffix("?").split()
            if question.kind == "presence":
                assert question.answer == ("yes" if words[-1] in names else "no")
            elif question.text.startswith("how many objects"):
                assert question.answer == str(len(scene.things))
            elif question.kind == "count":
                assert question.answer == str(names[plurals[words[2]]])
            elif question.kind == "relation" and question.answer in ("yes", "no"):
                one, other = scene.things[question.about[0]], scene.things[question.other[0]]
                axis, sign = {"left": (0, 1), "right": (0, -1), "above": (1, 1), "below": (1, -1)}[words[3]]
                assert (sign * (other.center[axis] - one.center[axis]) > 0) == (question.answer == "yes")
            elif question.kind == "relation":
                other = scene.things[question.other[0]]
                axis, sign = {"left": (0, 1), "right": (0, -1), "above": (1, 1), "below": (1, -1)}[words[2]]
                there = [one.noun for one in scene.things if sign * (other.center[axis] - one.center[axis]) > 0]
                assert there == [question.answer]
            elif question.kind == "text":
                assert question.answer == scene.things[question.about[0]].word
