"""Growing version 1's model into version 2's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from tokenprune.evals.dev.train import checkpoint
from tokenprune.evals.dev.train.v2.grow import grow
from tokenprune.evals.dev.train.v2.model import build_processor


def test_a_grown_model_answers_as_the_old_one_with_twice_the_layers(tmp_path: Path) -> None:
    processor = checkpoint.build_processor()
    torch.manual_seed(0)
    tower = Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=56)
    )
    old: Any = checkpoint.build_model(tower, processor, 0, hidden_size=64, intermediate_size=48, num_hidden_layers=2)
    with torch.no_grad():
        for layer in old.model.language_model.layers:
            layer.mlp.down_proj.weight[:, 1::2] = 0  # what the second half would read differently
    old.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    new_processor = build_processor()
    new: Any = grow(tmp_path, new_processor, seed=1).eval()
    assert len(new.model.language_model.layers) == 4
    text = "USER: where is the apple? ASSISTANT:"
    ids, new_ids = (p.tokenizer(text, return_tensors="pt").input_ids for p in (processor, new_processor))
    with torch.no_grad():
        ours = new.model.language_model(new_ids).last_hidden_state
        theirs = old.eval().model.language_model(ids).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-5)
    image = torch.randn(1, 3, 56, 56)
    assert torch.equal(new.get_image_features(image).pooler_output[0], old.get_image_features(image).pooler_output[0])
    known, grown = processor.tokenizer.get_vocab(), new_processor.tokenizer.get_vocab()
    assert known.keys() < grown.keys()
    table = new.get_input_embeddings().weight
    assert all(torch.equal(table[grown[w]], old.get_input_embeddings().weight[i]) for w, i in known.items())


def test_a_missing_model_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make train"):
        grow(tmp_path / "none", build_processor(), seed=0)
