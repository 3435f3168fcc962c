"""A checkpoint is exported to a folder that plain transformers can load and query at any of its sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Dinov2Config, Dinov2Model, LlavaForConditionalGeneration

from tokenprune.evals.dev.train import export, state
from tokenprune.evals.dev.train.batches.pack import Packer
from tokenprune.evals.dev.train.losses import Trainee
from tokenprune.evals.dev.train.start import llava
from tokenprune.evals.dev.train.start.model import build_processor


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
