"""How the bundled model is trained: packing, patches, points and checkpoints."""

import random

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from tokenprune.evals.dev.train.batches.pack import Packer
from tokenprune.evals.dev.train.batches.patches import PatchTruth
from tokenprune.evals.dev.train.losses import Trainee
from tokenprune.evals.dev.train.scenes.assets import Assets
from tokenprune.evals.dev.train.scenes.draw import SIGN, Scene, draw_scene
from tokenprune.evals.dev.train.start.llava import build_model
from tokenprune.evals.dev.train.start.model import build_processor

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


def test_every_question_counts_alike_whatever_the_length_of_its_answer(scenes: list[Scene]) -> None:
    processor = build_processor()
    packer = Packer(processor)
    numbers = processor.tokenizer.convert_tokens_to_ids("00")
    trainee = Trainee(build_model(small_tower(), processor, 0, **SMALL), packer.head, numbers)
    batch = packer.pack(random.Random(0), scenes[:1])
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
