"""Growing a model from version 1."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from tokenprune.evals.dev.train.start import llava
from tokenprune.evals.dev.train.start.grow import grow, known_words
from tokenprune.evals.dev.train.start.model import build_processor
from tokenprune.evals.dev.train.vocabulary.nouns import nouns

NOUNS = sorted(noun.name for noun in nouns())[:50]


@pytest.fixture(scope="module")
def version_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with two layers, in which every second inner unit adds nothing."""
    folder = tmp_path_factory.mktemp("version_1")
    processor = llava.build_processor(NOUNS)
    torch.manual_seed(0)
    tower = Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=56)
    )
    old: Any = llava.build_model(tower, processor, 0, hidden_size=64, intermediate_size=48, num_hidden_layers=2)
    with torch.no_grad():
        for layer in old.model.language_model.layers:
            layer.mlp.down_proj.weight[:, 1::2] = 0  # a grown model's second half would read different states
    old.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_grown_model_answers_as_the_old_one_with_twice_the_layers(version_1: Path) -> None:
    processor, new_processor = llava.build_processor(NOUNS), build_processor()
    old: Any = llava.LlavaForConditionalGeneration.from_pretrained(version_1).eval()
    new: Any = grow(version_1, new_processor, seed=1).eval()
    assert len(new.model.language_model.layers) == 4
    text = "USER: where is the apple? ASSISTANT:"
    ids, new_ids = (p.tokenizer(text, return_tensors="pt").input_ids for p in (processor, new_processor))
    with torch.no_grad():
        ours = new.model.language_model(new_ids).last_hidden_state
        theirs = old.model.language_model(ids).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-5)
    image = torch.randn(1, 3, 56, 56)
    assert torch.equal(new.get_image_features(image).pooler_output[0], old.get_image_features(image).pooler_output[0])
    new_words, old_words = known_words(version_1, new_processor)
    assert len(old_words) == len(processor.tokenizer.get_vocab())
    assert torch.equal(new.get_input_embeddings().weight[new_words], old.get_input_embeddings().weight[old_words])
