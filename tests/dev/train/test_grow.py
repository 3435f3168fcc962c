"""Growing a model from version 1, and the heads that read it."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from tokenprune.evals.dev.train.batches.pack import Packer
from tokenprune.evals.dev.train.batches.patches import NO_LETTER, Patches, PatchHeads
from tokenprune.evals.dev.train.losses import Trainee, grid_places
from tokenprune.evals.dev.train.run import Run
from tokenprune.evals.dev.train.scenes.assets import Assets
from tokenprune.evals.dev.train.scenes.draw import draw_scene
from tokenprune.evals.dev.train.stages import anchor as anchoring
from tokenprune.evals.dev.train.stages.heads import fit
from tokenprune.evals.dev.train.start import llava
from tokenprune.evals.dev.train.start.grow import grow, known_words
from tokenprune.evals.dev.train.start.llava import build_model
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


def test_a_missing_model_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no model to grow"):
        grow(tmp_path / "none", build_processor(), seed=0)


def test_the_anchor_brings_words_and_visual_tokens_back(version_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    processor = build_processor()
    model = grow(version_1, processor, seed=1)
    trainee = Trainee(model, [2], 0)
    new_words, old_words = known_words(version_1, processor)
    old: Any = llava.LlavaForConditionalGeneration.from_pretrained(version_1)
    features = torch.randn(256, 24)
    with torch.no_grad():
        said = trainee.project(features)
        for weight in (*trainee.projector.parameters(), trainee.lm.embed_tokens.weight):  # as stage one does
            weight += 0.5 * weight.std() * torch.randn_like(weight)
        turned = trainee.project(features)
    nothing = torch.full((256,), -100)
    truth = Patches(
        nothing, nothing, torch.zeros(256, 8), torch.zeros(256), torch.zeros(256), torch.full((256, 3), NO_LETTER)
    )
    truth.noun[:8], truth.share[:8] = new_words[-8:], 0.125
    monkeypatch.setattr(anchoring, "_said", lambda *_: (features, said, truth))
    monkeypatch.setattr(anchoring, "STEPS", 300)
    monkeypatch.setattr(anchoring, "RIGHT", 100.0)  # so that nothing else matters
    run = object.__new__(Run)  # without sources
    args = SimpleNamespace(version_1=version_1)
    vars(run).update(args=args, processor=processor, trainee=trainee, device=torch.device("cpu"))
    monkeypatch.setattr(Run, "write", lambda *_, **__: None)
    anchoring.anchor(run, PatchHeads(64))
    words = trainee.lm.embed_tokens.weight
    assert torch.equal(words[new_words], old.get_input_embeddings().weight[old_words])
    fresh = torch.ones(len(words), dtype=torch.bool).index_fill(0, new_words, False)
    assert torch.allclose(words[fresh].norm(dim=1), words[new_words].norm(dim=1).mean(), rtol=1e-3)
    assert (trainee.project(features) - said).norm() < 0.5 * (turned - said).norm()


# Heads are fitted before stage two.


def test_fitted_heads_read_what_tokens_say(assets: Assets) -> None:
    torch.manual_seed(0)
    tower = Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=112)
    )
    processor = build_processor()
    packer, rng = Packer(processor), random.Random(4)
    trainee = Trainee(build_model(tower, processor, seed=0, hidden_size=128, num_hidden_layers=11), packer.head, 0)
    batch = packer.pack(rng, [draw_scene(rng, assets, (8, 12), 4, "mixed") for _ in range(4)])
    told = torch.cat([grid_places((8, 12)).expand(4, -1, -1), batch.edges], 2)
    features = torch.cat([told, 0.1 * torch.randn(4, 96, 18)], 2)
    before = trainee(features, batch, aids=False)
    fit(trainee, [(features, batch)])
    after = trainee(features, batch, aids=False)
    assert after.points < 0.9 * before.points
    assert after.place < 0.1 * before.place
    assert after.edges < 0.3 * before.edges
    assert torch.equal(after.answer, before.answer)
