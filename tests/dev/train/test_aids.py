"""The aids of the training: what rows recall, and where those that count look."""

import random

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from tokenprune.evals.dev.train.batches.pack import Batch, Packer
from tokenprune.evals.dev.train.losses import Trainee, attention_shares, count_loss, recall_loss
from tokenprune.evals.dev.train.scenes.assets import Assets
from tokenprune.evals.dev.train.scenes.draw import draw_scene
from tokenprune.evals.dev.train.start.llava import build_model
from tokenprune.evals.dev.train.start.model import build_processor


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(build_processor())


@pytest.fixture(scope="module")
def batch(assets: Assets, packer: Packer) -> Batch:
    rng = random.Random(5)
    return packer.pack(rng, [draw_scene(rng, assets, (8, 12), 6, "mixed") for _ in range(4)])


@pytest.fixture(scope="module")
def trainee(packer: Packer) -> Trainee:
    torch.manual_seed(0)
    tower = Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=112)
    )
    shape = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    return Trainee(build_model(tower, build_processor(), 0, **shape), packer.head, 0)


def test_answers_that_compare_recall_the_nouns_of_their_question(
    packer: Packer, trainee: Trainee, batch: Batch
) -> None:
    layer, hidden = trainee.lm.layers[1], torch.randn(4, batch.position_ids.shape[1], 256)
    rotary = trainee.lm.rotary_emb(hidden, batch.position_ids)
    with torch.no_grad():
        shares = attention_shares(layer, hidden, rotary, batch)  # the first two of four heads
        loss = recall_loss(shares, batch)
    text, wanted = shares.shape[-1] - shares.shape[-2], []
    for row, asked in enumerate(batch.questions):
        at = 0
        for question in asked:
            prompt, answer = packer.ids(f"{question.text} ASSISTANT:"), packer.ids(question.answer)
            named = [at + index for index, token in enumerate(prompt) if token in packer.noun_ids.values()]
            for line in range(at + len(prompt) - 1, at := at + len(prompt) + len(answer)):
                if question.kind in ("relation", "size"):
                    assert len(named) == (1 if question.text.startswith("what") else 2)
                    wanted += [shares[row, 0, line, text + named[0]], shares[row, 1, line, text + named[-1]]]
    assert len(wanted) > 20
    assert float(loss) == pytest.approx(float(-torch.stack(wanted).log().mean()), rel=1e-4)


def test_answers_that_count_give_each_thing_and_the_first_token_equal_mass(packer: Packer, batch: Batch) -> None:
    first, heads = len(packer.head), 2
    shares = torch.full((4, heads, *batch.mask.shape[-2:]), 1e-9)
    unequal, asked = shares.clone(), 0
    for image, questions in enumerate(batch.questions):
        rows = iter(batch.counts[image].nonzero().flatten().tolist())
        for question in questions:
            if question.kind != "count":
                continue
            asked += 1
            row = next(rows)
            assert batch.target[image, row] == packer.ids(question.answer)[0]
            patches = [(batch.owner[image] == thing).nonzero().flatten() for thing in question.about]
            patches = [of_thing for of_thing in patches if len(of_thing)]
            for of_thing in patches:
                shares[image, 0, row, first + of_thing] = 1 / (len(patches) + 1) / len(of_thing)
                unequal[image, 0, row, first + of_thing] = 0.5 / len(patches) / len(of_thing)
            shares[image, 0, row, 0], unequal[image, 0, row, 0] = 1 / (len(patches) + 1), 0.5
        assert next(rows, None) is None
    assert asked > 3
    assert float(count_loss(shares, batch, first)) == pytest.approx(0, abs=1e-5)
    assert float(count_loss(unequal, batch, first)) > 0.05
