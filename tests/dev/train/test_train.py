"""How the bundled model is trained: packing, patches, and growing from version 1."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from tokenprune.evals.dev.train.batches.pack import Packer
from tokenprune.evals.dev.train.losses import Trainee
from tokenprune.evals.dev.train.scenes.assets import Assets
from tokenprune.evals.dev.train.scenes.draw import draw_scene
from tokenprune.evals.dev.train.start import llava
from tokenprune.evals.dev.train.start.grow import grow, known_words
from tokenprune.evals.dev.train.start.llava import build_model
from tokenprune.evals.dev.train.start.model import build_processor
from tokenprune.evals.dev.train.vocabulary.nouns import nouns

SMALL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


def small_tower(side: int = 16) -> Dinov2Model:
    torch.manual_seed(0)
    return Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=14 * side)
    ).eval()


@pytest.mark.parametrize("grid", [(16, 16), (8, 12)])
def test_packed_questions_equal_questions_asked_alone(assets: Assets, grid: tuple[int, int]) -> None:
    """Many questions after one image must give the same as separate prompts, or training would teach something else."""
    processor = build_processor()
    model = build_model(small_tower(), processor, 0, **SMALL).eval()
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


def test_every_question_counts_alike_whatever_the_length_of_its_answer(assets: Assets) -> None:
    processor = build_processor()
    packer = Packer(processor)
    numbers = processor.tokenizer.convert_tokens_to_ids("00")
    trainee = Trainee(build_model(small_tower(), processor, 0, **SMALL), packer.head, numbers)
    rng = random.Random(0)
    batch = packer.pack(rng, [draw_scene(rng, assets, (8, 8), 6)])
    assert float(batch.weight.sum()) == pytest.approx(len(batch.questions[0]))
    asked = batch.target >= 0
    assert (batch.weight[~asked] == 0).all()
    target, weight = batch.target[asked], batch.weight[asked]
    logits = torch.randn(len(target), trainee.lm.config.vocab_size)
    losses, at = [], 0
    for question in batch.questions[0]:
        rows = slice(at, at := at + len(packer.ids(question.answer)) + 1)
        losses.append(trainee.answer_loss(logits[rows], target[rows], torch.ones(rows.stop - rows.start)))
    assert {question.kind for question in batch.questions[0]} > {"rec"}
    assert float(trainee.answer_loss(logits, target, weight)) == pytest.approx(float(torch.stack(losses).mean()))


# Growing a model from version 1.


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
