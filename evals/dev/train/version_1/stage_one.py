"""Stage one: the tower's upper blocks, the projector and the word embeddings learn which patch shows which noun."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm
from transformers import Dinov2Model

from tokenprune.evals.dev.train.version_1.batches import Packer, SceneSource, patch_nouns
from tokenprune.evals.dev.train.version_1.losses import Trainee

FROZEN_BLOCKS = 4
TEMPERATURE = 14.0


def learn_patches(tower: Dinov2Model, trainee: Trainee, source: SceneSource, packer: Packer, steps: int) -> None:
    """Train on the cross-entropy of every patch's visual token over the nouns and one "nothing", by cosine.

    LLaVA aligns with captions; scenes offer something better, the thing that covers each patch. Only as many background
    patches are used as others: more of them would drown the nouns.
    """
    blocks = tower.encoder.layer[FROZEN_BLOCKS:].requires_grad_(True)
    nothing = nn.Parameter(torch.randn(1, trainee.lm.config.hidden_size) * 0.02)
    words = trainee.lm.embed_tokens.weight
    optimiser = torch.optim.AdamW(
        [
            {"params": list(blocks.parameters()), "lr": 2e-4, "weight_decay": 0.05},
            {"params": [*trainee.projector.parameters(), words, nothing], "lr": 2e-3, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [2e-4, 2e-3], total_steps=steps, pct_start=0.1)
    bar = tqdm(range(steps), desc="stage one", mininterval=5)
    for _ in bar:
        scenes = source.scenes(16, most_things=5)
        names = torch.stack([patch_nouns(scene, packer.noun_ids) for scene in scenes])
        with torch.autocast("cpu", torch.bfloat16):
            visual = trainee.project(source.encode(scenes, frozen=FROZEN_BLOCKS))
        known = names >= 0
        empty = (~known).flatten().nonzero()[:, 0]
        empty = empty[torch.randperm(len(empty))[: int(known.sum())]]
        rows = torch.cat([visual[known], visual.flatten(0, 1)[empty]]).float()
        # The embeddings of all nouns, then the one for background.
        classes = F.normalize(torch.cat([words, nothing]), dim=-1)
        target = torch.cat([names[known], torch.full_like(empty, len(words))])
        logits = TEMPERATURE * F.normalize(rows, dim=-1) @ classes.T
        loss = F.cross_entropy(logits, target)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        right = (logits.argmax(-1) == target)[: int(known.sum())].float().mean()
        bar.set_postfix(loss=round(loss.item(), 3), patches_right=round(right.item(), 3), refresh=False)
    tower.requires_grad_(False)
