"""The aids of the training: what rows recall, and where those that count look."""

import random

import pytest
import torch

from tokenprune.evals.dev.train.batches.pack import Batch, Packer
from tokenprune.evals.dev.train.losses import count_loss
from tokenprune.evals.dev.train.scenes.assets import Assets
from tokenprune.evals.dev.train.scenes.draw import draw_scene
from tokenprune.evals.dev.train.start.model import build_processor


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(build_processor())


@pytest.fixture(scope="module")
def batch(assets: Assets, packer: Packer) -> Batch:
    rng = random.Random(5)
    return packer.pack(rng, [draw_scene(rng, assets, (8, 12), 6, "mixed") for _ in range(4)])


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
