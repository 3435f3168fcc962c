"""Heads are fitted before stage two."""

from __future__ import annotations

import random

import torch
from transformers import Dinov2Config, Dinov2Model

from tokenprune.evals.dev.train.batches.pack import Packer
from tokenprune.evals.dev.train.losses import Trainee, grid_places
from tokenprune.evals.dev.train.scenes.assets import Assets
from tokenprune.evals.dev.train.scenes.draw import draw_scene
from tokenprune.evals.dev.train.stages.heads import fit
from tokenprune.evals.dev.train.start.llava import build_model
from tokenprune.evals.dev.train.start.model import build_processor


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
