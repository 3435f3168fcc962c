"""Version 2 of the bundled model: its scenes, questions, grids, packing and checkpoints."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from tokenprune.evals.dev.train.assets import HELD_OUT_BACKGROUNDS, TRAINING_BACKGROUNDS
from tokenprune.evals.dev.train.assets import _files_by_noun as v1_files
from tokenprune.evals.dev.train.tower import NATIVE_SIDE
from tokenprune.evals.dev.train.v2 import state
from tokenprune.evals.dev.train.v2.ask import Question, rec_questions, vqa_questions
from tokenprune.evals.dev.train.v2.assets import HELD_OUT_FONTS, TRAINING_FONTS, Assets, CutOut, _font, background_files
from tokenprune.evals.dev.train.v2.draw import KINDS, SIGN, Scene, draw_scene
from tokenprune.evals.dev.train.v2.encode import NO_JITTER, Encoder, Jitter
from tokenprune.evals.dev.train.v2.grids import WEIGHTS, choose_grid, images_of
from tokenprune.evals.dev.train.v2.losses import Trainee
from tokenprune.evals.dev.train.v2.model import build_model, build_processor
from tokenprune.evals.dev.train.v2.nouns import Noun, nouns
from tokenprune.evals.dev.train.v2.pack import Packer
from tokenprune.evals.dev.train.v2.patches import NO_LETTER, PatchTruth
from tokenprune.evals.dev.train.v2.words import SIGN_WORDS

GRAY = (128, 128, 128)
COLORS = [(220, 20, 20), (30, 60, 220), (240, 220, 20), (10, 10, 10), (20, 160, 40), (255, 255, 255), (250, 140, 10)]
NAMES = ["apple", "ball", "lemon", "wheel", "frog", "ghost", "carrot"]


def disc(name: str, color: tuple[int, int, int]) -> CutOut:
    pixels = np.zeros((78, 78, 4), np.uint8)
    rows, columns = np.mgrid[:78, :78]
    pixels[(rows - 38.5) ** 2 + (columns - 38.5) ** 2 < 39**2] = (*color, 255)
    return CutOut(next(noun for noun in nouns() if noun.name == name), f"{name}.png", Image.fromarray(pixels))


@pytest.fixture(scope="module")
def assets() -> Assets:
    discs = tuple(disc(name, color) for name, color in zip(NAMES, COLORS, strict=True))
    return Assets(discs, (Image.new("RGB", (500, 400), GRAY),), (_font(Path(), "DejaVuSans"),))


@pytest.fixture(scope="module")
def scenes(assets: Assets) -> list[Scene]:
    rng = random.Random(1)
    grids = list(WEIGHTS)
    return [draw_scene(rng, assets, grids[i % len(grids)], 6) for i in range(150)]


@pytest.fixture(scope="module")
def questions(scenes: list[Scene]) -> dict[str, list[Question]]:
    rng = random.Random(2)
    found = defaultdict(list)
    for scene in scenes:
        for question in [*rec_questions(scene), *vqa_questions(rng, scene, nouns())]:
            found[question.kind].append(question)
    return found


def test_boxes_are_the_extent_of_the_pixels(assets: Assets) -> None:
    """At 24 x 24 patches a scene is not made smaller, so a box ends where its thing's pixels do."""
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


def test_things_do_not_overlap(scenes: list[Scene]) -> None:
    for scene in scenes:
        covered = np.zeros((400, 400), int)
        for box in (thing.box for thing in scene.things):
            x1, y1, x2, y2 = (round(400 * edge) for edge in box)
            covered[y1:y2, x1:x2] += 1
        assert covered.max() == 1


def test_patches_belong_to_the_thing_whose_box_they_touch(scenes: list[Scene]) -> None:
    for scene in scenes:
        rows, columns = scene.shape
        assert scene.pixels.shape == (14 * rows, 14 * columns, 3)
        for row, column in np.argwhere(scene.owner >= 0):
            x1, y1, x2, y2 = scene.things[scene.owner[row, column]].box
            assert x1 * columns < column + 1
            assert x2 * columns > column
            assert y1 * rows < row + 1
            assert y2 * rows > row


def test_a_seed_gives_the_same_scene_again(assets: Assets) -> None:
    for kind in KINDS:
        one, two = (draw_scene(random.Random(5), assets, (12, 16), 6, kind) for _ in range(2))
        assert one.things == two.things
        assert (one.pixels == two.pixels).all()


def test_nothing_is_on_both_sides_of_the_split() -> None:
    files = Counter(file for noun in nouns() for file in noun.files)
    assert max(files.values()) == 1
    held_out = [noun for noun in nouns() if noun.held_out]
    assert all(noun.held_out < set(noun.files) for noun in held_out)
    assert {noun.group for noun in held_out} == {noun.group for noun in nouns()}
    assert len(held_out) > 400
    # What version 1 held out is held out still.
    stamps = (f"stamps/{files[-1]}" for files in v1_files().values() if len(files) > 1)
    assert set(stamps) <= {file for noun in held_out for file in noun.held_out}
    assert not set(HELD_OUT_BACKGROUNDS) & set(TRAINING_BACKGROUNDS)
    assert not set(HELD_OUT_FONTS) & set(TRAINING_FONTS)
    seen, unseen = (set(background_files(Path(), held_out=side)) for side in (False, True))
    assert not seen & unseen


def test_no_answer_pays_as_a_guess(questions: dict[str, list[Question]]) -> None:
    assert Counter(q.answer for q in questions["presence"]).most_common()[0][1] == len(questions["presence"]) / 2
    told = Counter(q.answer for q in questions["relation"] if q.answer in ("yes", "no"))
    assert min(told.values()) > 0.4 * told.total()
    counts = Counter(q.answer for q in questions["count"])
    assert max(counts.values()) < 0.35 * counts.total()
    assert set(counts) == set("123456")


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
            elif question.kind == "text":
                assert question.answer == scene.things[question.about[0]].word


def test_every_word_is_known_and_a_plural_is_its_noun_and_an_ending() -> None:
    tokenizer = build_processor().tokenizer
    names = {noun.name for noun in nouns()}
    assert not names & set(SIGN_WORDS)
    for noun in nouns():
        assert tokenizer.tokenize(noun.name) == [noun.name]
        if noun.plural:
            assert tokenizer.tokenize(noun.plural) == [noun.name, "##" + noun.plural.removeprefix(noun.name)]
    assert tokenizer.decode(tokenizer("how many axes are there?", add_special_tokens=False).input_ids) == (
        "how many axes are there?"
    )


def test_questions_have_only_known_words(scenes: list[Scene]) -> None:
    packer = Packer(build_processor())
    rng = random.Random(0)
    for scene in scenes[:40]:
        for question in packer.questions(rng, scene):
            assert packer.tokenizer.unk_token_id not in packer.ids(f"{question.text} {question.answer}"), question


def small_tower(side: int = 16) -> Dinov2Model:
    torch.manual_seed(0)
    return Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=14 * side)
    ).eval()


def test_the_encoder_without_jitter_is_the_tower_itself(scenes: list[Scene]) -> None:
    tower = small_tower()
    native = torch.randn(1, 1 + NATIVE_SIDE**2, 24)
    encoder = Encoder(tower, native)
    corner = (NATIVE_SIDE - 16) // 2
    view = NO_JITTER.window(random.Random(0))
    window = encoder.windows(16, 16, [view])
    square = native[:, 1:].reshape(1, NATIVE_SIDE, NATIVE_SIDE, 24)[:, corner : corner + 16, corner : corner + 16]
    assert torch.allclose(window, torch.cat([native[:, :1], square.reshape(1, 256, 24)], 1), atol=1e-4)
    tower.embeddings.position_embeddings.data = window
    # On another grid the tower interpolates what it stores, which the view goes beyond only at its border.
    pixels = torch.zeros(1, 3, 8 * 14, 12 * 14)
    theirs = tower.embeddings.interpolate_pos_encoding(window, *pixels.shape[2:])[:, 1:].reshape(8, 12, 24)
    ours = encoder.windows(8, 12, [view])[:, 1:].reshape(8, 12, 24)
    assert torch.allclose(theirs[1:-1, 1:-1], ours[1:-1, 1:-1], atol=1e-4)


def test_jitter_moves_the_view() -> None:
    rng = random.Random(0)
    views = {Jitter().window(rng) for _ in range(10)}
    assert len(views) == 10
    assert all(8 < left + width / 2 < 28 and 13 < width < 19 for left, _, width, _ in views)


@pytest.mark.parametrize("grid", [(16, 16), (8, 12)])
def test_packed_questions_equal_questions_asked_alone(assets: Assets, grid: tuple[int, int]) -> None:
    """Many questions behind one image must give what as many prompts give, or training teaches something else."""
    processor = build_processor()
    model = build_model(small_tower(), processor, seed=0, layers=2, width=128).eval()
    packer = Packer(processor)
    trainee = Trainee(model, packer.head, processor.tokenizer.convert_tokens_to_ids("00"))
    rng = random.Random(4)
    scene = draw_scene(rng, assets, grid, 5, "mixed")
    features = torch.randn(1, grid[0] * grid[1], 24)
    batch = packer.pack(rng, [scene])
    with torch.no_grad():
        packed = trainee(features, batch, look_layer=1, place_layer=1).logits
        visual = trainee.project(features)
        embed = model.get_input_embeddings()
        start = len(packer.head) + visual.shape[1]
        alone = []
        for question in batch.questions[0]:
            ids = packer.ids(f"{question.text} ASSISTANT:") + packer.ids(question.answer)
            text = embed(torch.tensor([ids]))
            output = model(inputs_embeds=torch.cat([embed(torch.tensor([packer.head])), visual, text], 1))
            alone.append(output.logits[0, start + len(packer.ids(f"{question.text} ASSISTANT:")) - 1 :])
    assert len(batch.questions[0]) > 5
    assert torch.allclose(packed, torch.cat(alone), atol=2e-4)


def test_the_truth_of_patches(scenes: list[Scene]) -> None:
    truth = PatchTruth(Packer(build_processor()))
    for scene in scenes[:30]:
        found = truth([scene])
        owned = torch.from_numpy(scene.owner).flatten() >= 0
        assert (found.central.sum() == torch.from_numpy(scene.owner).flatten()[owned].unique().numel()).all()
        signs = torch.tensor([thing.noun == SIGN for thing in scene.things])
        assert ((found.word >= 0) == signs[torch.from_numpy(scene.owner).flatten().long()] & owned).all()
        for patch in owned.nonzero()[:, 0].tolist():
            x1, y1, x2, y2 = scene.things[scene.owner.flatten()[patch]].box
            left, top, right, bottom = (found.reach[patch, :4] / 2).tolist()
            assert left + right == pytest.approx(x2 - x1, abs=1e-4)
            assert top + bottom == pytest.approx(y2 - y1, abs=1e-4)


def test_grids_fit_the_budget() -> None:
    rng = random.Random(0)
    assert {choose_grid(rng, 256) for _ in range(500)} == {grid for grid in WEIGHTS if grid[0] * grid[1] <= 256}
    assert images_of((16, 16), 4096) == 16
    assert images_of((24, 24), 100) == 2


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    assert state.latest(tmp_path) is None
    for stage, step in ((1, 100), (1, 200), (2, 5)):
        state.save(tmp_path, stage, step, {"weights": {"a": torch.ones(2)}})
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["state-1-000200.pt", "state-2-000005.pt"]
    found = state.latest(tmp_path)
    assert found is not None
    assert (found["stage"], found["step"]) == (2, 5)


def test_a_noun_keeps_its_last_stamp_and_a_designer_for_the_test() -> None:
    assert Noun("cat", "animal", ("a.png", "b.png"), ()).held_out == {"stamps/b.png"}
    assert not Noun("cat", "animal", ("a.png",), ()).held_out
    held_out = {noun.held_out for noun in (Noun(name, "animal", ("a.png",), ("1f408",)) for name in NAMES)}
    assert frozenset({"fluent/1f408.webp", "flat/1f408.png"}) in held_out
    assert len(held_out) == 3


def test_patches_of_a_sign_know_their_letters(assets: Assets) -> None:
    truth = PatchTruth(Packer(build_processor()))
    rng = random.Random(8)
    for _ in range(10):
        scene = draw_scene(rng, assets, (24, 24), 3, "text")
        found = truth([scene])
        for index, thing in enumerate(scene.things):
            if thing.word is None:
                assert not thing.edges
                continue
            assert list(thing.edges) == sorted(thing.edges)
            assert thing.edges[0] > 0
            assert thing.edges[-1] < 1
            row = np.argwhere(scene.owner == index)[:, 0]
            middle = np.bincount(row).argmax()
            line = found.letters.reshape(24, 24, 3)[middle][scene.owner[middle] == index]
            on = [letter for letter in line[:, 1].tolist() if letter != NO_LETTER]
            word = [ord(letter) - ord("a") for letter in thing.word]
            left = iter(word)
            assert all(letter in left for letter, _ in groupby(on)), "letters out of their order"
