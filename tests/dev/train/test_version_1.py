"""The scenes, questions and packing that version 1 is trained on, and the command that fetches its sources."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from tokenprune.evals.boxes import within
from tokenprune.evals.dev.train.sources.rcc import read_rcc
from tokenprune.evals.dev.train.start.llava import build_model, build_processor
from tokenprune.evals.dev.train.version_1 import assets
from tokenprune.evals.dev.train.version_1.batches import VISUAL, Packer, SeenScene
from tokenprune.evals.dev.train.version_1.losses import Trainee
from tokenprune.evals.dev.train.version_1.questions import (
    box_words,
    rec_questions,
    referring_expressions,
    vqa_questions,
)
from tokenprune.evals.dev.train.version_1.scenes import GRID, SIDE, CutOut, Scene, Thing, draw_scene
from tokenprune.evals.models.box_formats import BOX_FORMATS


def disc(noun: str, color: tuple[int, int, int]) -> CutOut:
    image = np.zeros((80, 80, 4), np.uint8)
    rows, columns = np.mgrid[:80, :80]
    image[(rows - 40) ** 2 + (columns - 40) ** 2 < 39**2] = (*color, 255)
    return CutOut(noun, f"{noun}.png", Image.fromarray(image).crop((1, 1, 79, 79)))


CUTOUTS = [
    disc("apple", (220, 20, 20)),
    disc("ball", (30, 60, 220)),
    disc("lemon", (240, 220, 20)),
    disc("wheel", (10, 10, 10)),
    disc("frog", (20, 160, 40)),
]
BACKGROUNDS = [Image.new("RGB", (400, 300), (128, 128, 128))]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = random.Random(1)
    return [draw_scene(rng, CUTOUTS, BACKGROUNDS, 1 + i % 5) for i in range(25)]


def test_boxes_are_the_extent_of_the_pixels(scenes: list[Scene]) -> None:
    for scene in scenes:
        rows, columns = np.where(
            (scene.pixels.astype(int) - scene.pixels[:, :, :1]).any(2) | (scene.pixels[..., 0] < 60)
        )
        inside = np.zeros(len(rows), bool)
        for thing in scene.things:
            x1, y1, x2, y2 = thing.box
            here = (columns >= x1 - 1) & (columns <= x2) & (rows >= y1 - 1) & (rows <= y2)
            assert here.any()
            inside |= here
        assert inside.all(), "pixels of a thing lie outside of every box"


def test_things_do_not_overlap(scenes: list[Scene]) -> None:
    for scene in scenes:
        covered = np.zeros((SIDE, SIDE), int)
        for x1, y1, x2, y2 in (thing.box for thing in scene.things):
            covered[y1:y2, x1:x2] += 1
        assert covered.max() == 1


def test_patch_owner_follows_the_boxes(scenes: list[Scene]) -> None:
    cell = SIDE // GRID
    for scene in scenes:
        for row, column in np.argwhere(scene.owner >= 0):
            x1, y1, x2, y2 = scene.things[scene.owner[row, column]].box
            assert x1 < (column + 1) * cell
            assert x2 > column * cell
            assert y1 < (row + 1) * cell
            assert y2 > row * cell


@pytest.mark.parametrize(
    ("noun", "word"), [("apple", "red"), ("ball", "blue"), ("lemon", "yellow"), ("wheel", "black")]
)
def test_color_words(noun: str, word: str) -> None:
    assert next(c for c in CUTOUTS if c.noun == noun).color == word


def test_every_expression_names_one_thing() -> None:
    a = Thing("ball", "a", "red", (0, 0, 100, 100))
    b = Thing("ball", "b", "blue", (120, 0, 170, 50))
    c = Thing("frog", "c", None, (0, 150, 40, 190))
    scene = Scene(np.zeros((SIDE, SIDE, 3), np.uint8), (a, b, c), np.full((GRID, GRID), -1, np.int8))
    found = dict(referring_expressions(scene))
    assert found["the frog"] == 2
    assert found["the red ball"] == found["the larger ball"] == found["the left ball"] == 0
    assert found["the blue ball"] == found["the smaller ball"] == found["the right ball"] == 1
    assert "the ball" not in found


def test_yes_and_no_are_true(scenes: list[Scene]) -> None:
    rng = random.Random(0)
    for scene in scenes:
        there = {thing.noun for thing in scene.things}
        for question in vqa_questions(rng, scene, [c.noun for c in CUTOUTS] + ["zebra"]):
            if question.kind == "presence":
                noun = question.text.removeprefix("is there a ").removesuffix("?")
                assert question.answer == ("yes" if noun in there else "no")


def test_box_words_are_read_back_by_the_evals() -> None:
    box = (10, 20, 110, 200)
    parsed = BOX_FORMATS["bundled"].fractions(box_words(box), (SIDE, SIDE))
    assert parsed is not None
    assert np.allclose(within((0.0, 0.0, float(SIDE), float(SIDE)), parsed), box, atol=SIDE / 100)


def test_split_has_no_file_on_both_sides() -> None:
    files = assets.files_by_noun()
    everything = [file for of_noun in files.values() for file in of_noun]
    assert len(everything) == len(set(everything))
    assert not set(assets.HELD_OUT_BACKGROUNDS) & set(assets.TRAINING_BACKGROUNDS)
    words = build_processor(assets.nouns()).tokenizer.get_vocab()
    assert all(noun in words for noun in files)


def test_packed_questions_equal_questions_asked_alone(scenes: list[Scene]) -> None:
    """Sixteen questions after one image must give the same as sixteen prompts, or training would teach something
    else."""
    processor = build_processor(assets.nouns())
    tower = Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=SIDE)
    )
    model = build_model(tower, processor, seed=0).eval()
    packer = Packer(processor, seed=0)
    trainee = Trainee(model, packer.head, processor.tokenizer.convert_tokens_to_ids("00"))
    seen = SeenScene(scenes[4], torch.randn(VISUAL, 24))
    batch = packer.pack([seen])
    with torch.no_grad():
        packed = trainee(batch).logits
        visual = trainee.project(seen.features[None])
        embed = model.get_input_embeddings()
        prompt = torch.cat([batch.text_ids[:, :0], torch.tensor([packer.head])], 1)
        start = len(packer.head) + VISUAL
        first = (batch.position_ids[0, start:] == start).nonzero()[:, 0]
        ends = [*first[1:].tolist(), int((batch.target[0] >= 0).nonzero()[-1]) + 1]
        alone = []
        for begin, end in zip(first.tolist(), ends, strict=False):
            ids = batch.text_ids[:, begin:end]
            output = model(inputs_embeds=torch.cat([embed(prompt), visual, embed(ids)], 1))
            alone.append(output.logits[0, start:][batch.target[0, begin:end] >= 0])
    assert len(alone) > 5
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_rec_answers_fit_their_things(scenes: list[Scene]) -> None:
    for scene in scenes:
        for question in rec_questions(scene):
            assert question.about is not None
            assert question.answer == box_words(scene.things[question.about].box)


def test_rcc_files_come_out_whole(tmp_path: Path) -> None:
    content = b"image " * 50
    packed = struct.pack(">I", len(content)) + zlib.compress(content)
    data = struct.pack(">I", len(packed)) + packed
    name = "a.webp"
    names = struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHHHI", 0, 1, 0, 0, 0)
    header = b"qres" + struct.pack(">4I", 1, 20, 20 + len(tree), 20 + len(tree) + len(data))
    file = tmp_path / "x.rcc"
    file.write_bytes(header + tree + data + names)
    assert list(read_rcc(file)) == [(name, content)]
    file.write_bytes(b"not one")
    with pytest.raises(ValueError, match="not a Qt resource"):
        list(read_rcc(file))


def test_the_sources_command_does_what_errors_advise(tmp_path: Path) -> None:
    (tmp_path / "complete").touch()  # everything exists, so nothing is downloaded
    command = [sys.executable, "-m", "tokenprune.evals.dev.train.sources.stamps", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"the sources are in {tmp_path}\n"
