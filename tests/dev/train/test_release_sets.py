"""What is released: sets of questions, and the exported model."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.files.discs import discs_on_gray
from PIL import Image
from transformers import AutoProcessor, Dinov2Config, Dinov2Model, LlavaForConditionalGeneration

from tokenprune.evals.dev.train import state
from tokenprune.evals.dev.train.batches.pack import Packer
from tokenprune.evals.dev.train.losses import Trainee
from tokenprune.evals.dev.train.release import check, export
from tokenprune.evals.dev.train.release.plans import HELD_OUT_THINGS, KINDS, REC, SQUARE, TALL, SetPlan
from tokenprune.evals.dev.train.release.sets import licensed, write_sets
from tokenprune.evals.dev.train.scenes.assets import Assets
from tokenprune.evals.dev.train.start import llava
from tokenprune.evals.dev.train.start.model import build_processor
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.tasks.refcoco import RefCoco
from tokenprune.evals.tasks.vqav2 import Vqav2

FEW = {"val": 6, "test": 3}
PLANS = (
    SetPlan("square", FEW, vqa=KINDS, asked=4, rec=REC),
    SetPlan("tall", FEW, TALL, scene="small", rec=("rec small",)),
)


def side(held_out: bool) -> Assets:
    """Return discs under the file names of one side of the split."""
    assets, named = discs_on_gray(), []
    for cutout in assets.cutouts:
        files = [file for file in cutout.noun.files if (file in cutout.noun.held_out) == held_out]
        named += [replace(cutout, file=file) for file in files]
    return replace(assets, cutouts=tuple(named))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    write_sets(folder, {split: licensed(side(held_out)) for split, held_out in HELD_OUT_THINGS.items()}, PLANS)
    return folder


def test_the_loaders_of_published_sets_read_them(sets: Path) -> None:
    style = STYLES["bundled"]
    questions = Vqav2("vqa", "VQA").load(sets / "square", style=style)
    assert {question.split for question in questions} == {"val", "test"}
    assert max(Counter(question.images for question in questions).values()) == 4
    for folder, shape in ((sets / "square", SQUARE), (sets / "tall", TALL)):
        expressions = RefCoco("rec", "REC", None).load(folder, style=style)
        assert {question.split for question in expressions} == {"val", "test"}
        for question in expressions:
            assert question.size == (14 * shape[1], 14 * shape[0]) == question.open_images()[0].size
            x1, y1, x2, y2 = question.box
            assert 0 <= x1 < x2 <= question.size[0]
            assert 0 <= y1 < y2 <= question.size[1]


def test_nothing_that_is_held_out_is_in_val_and_nothing_else_in_test(sets: Path) -> None:
    content = check.Content.read(sets / "square")
    assert len(content.sources) > 10
    assert not list(check.seen_on_the_wrong_side(content))
    swapped = replace(content, sources=[("test" if split == "val" else "val", file) for split, file in content.sources])
    wrong = {file for split, file in swapped.sources if file != "sign"}
    assert len(set(check.seen_on_the_wrong_side(swapped))) >= len(wrong)


def test_words_without_tokens_and_answers_that_are_right_too_often_are_found(sets: Path) -> None:
    def content(*answers: str, text: str = "is there a cat?") -> check.Content:
        return check.Content([("val", "presence", text, one) for one in answers], [], Counter(), 0)

    tokenizer = build_processor().tokenizer
    assert not [
        word for name in ("square", "tall") for word in check.unknown_words(check.Content.read(sets / name), tokenizer)
    ]
    assert list(check.unknown_words(content("yes", text="a quokka?"), tokenizer)) == ["a quokka? yes"]
    assert not list(check.guessable(content(*["yes", "no"] * 40)))
    assert list(check.guessable(content(*["yes"] * 48, *["no"] * 32))) == ["presence: 'yes' is right in 60% of 80"]


# A checkpoint is exported to a folder that plain transformers can load and query at any of its sizes.


def tiny_tower(*_: Any) -> tuple[Dinov2Model, None]:
    torch.manual_seed(0)
    shape = Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=224)
    return Dinov2Model(shape).eval(), None


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run at step 7 of stage two, with weights that differ from those of an untrained model."""
    monkeypatch.setattr(export, "tower_and_positions", tiny_tower)
    processor = build_processor()
    model = llava.build_model(tiny_tower()[0], processor, 3, num_hidden_layers=12)
    trainee = Trainee(model, Packer(processor).head, processor.tokenizer.convert_tokens_to_ids("00"))
    folder = tmp_path / "run"
    folder.mkdir()
    weights = {"tower": model.model.vision_tower.state_dict(), "trainee": trainee.state_dict()}
    state.save(folder, 2, 7, {**weights, "optimisers": []})
    (folder / "log.jsonl").write_text("{}\n")
    return folder


@pytest.mark.slow
def test_an_exported_checkpoint_is_asked_without_tokenprune(run: Path, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.iterdir()}
    assert export.export_newest(run, tmp_path, tmp_path / "model") == 7
    assert {file: file.stat().st_mtime_ns for file in run.iterdir()} == before
    saved = state.latest(run)
    assert saved is not None
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32)
    own, theirs = (
        saved["trainee"]["lm.layers.11.mlp.up_proj.weight"],
        loaded.model.language_model.layers[11].mlp.up_proj,
    )
    assert torch.allclose(own, theirs.weight, atol=1e-3)
    assert AutoProcessor.from_pretrained(tmp_path / "model").tokenizer.tokenize("where") == ["where"]
    Image.new("RGB", (60, 40), "seagreen").save(tmp_path / "image.png")
    answers = export.ask_without_tokenprune(tmp_path / "model", tmp_path / "image.png", "is there a cat?")
    assert [tuple(one[:3]) for one in answers] == [(h, w, h // 14 * (w // 14)) for h, w in export.SIZES]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "2. 7 steps" in card
    assert '"height": 112' in card


def test_a_run_in_stage_one_and_a_model_that_is_too_large_are_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LIMIT", 2**20)
    with pytest.raises(ValueError, match="100 may be bundled"):
        export.export_newest(run, tmp_path, tmp_path / "model")
    state.save(tmp_path, 1, 100, {})
    with pytest.raises(ValueError, match="no checkpoint of stage two"):
        export.export_newest(tmp_path, tmp_path, tmp_path / "model")
