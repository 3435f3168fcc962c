"""Between the stages of a grown model, bring visual tokens and words back to what its language model can read.

In stage one, only the angles between visual tokens and words matter, so both drift away from those of version 1.
"""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration

from tokenprune.evals.dev.train.batches.encode import Encoder
from tokenprune.evals.dev.train.batches.feed import PatchFeed, feed
from tokenprune.evals.dev.train.batches.patches import Patches, PatchHeads
from tokenprune.evals.dev.train.run import Run
from tokenprune.evals.dev.train.start.grow import known_words

BATCHES, ROWS = 100, 2048
STEPS, RATE = 1500, 1e-3
MOST_THINGS = 8
#: Weights of the distance to version 1's visual tokens, where it was right and where it was wrong.
RIGHT, WRONG = 4.0, 0.4


def anchor(run: Run, heads: PatchHeads) -> None:
    """Train the projector to reproduce version 1's visual tokens from the new tower's features.

    Version 1's word embeddings are restored, and new ones are scaled to the same length. Stage one's losses continue.
    """
    folder = run.args.version_1
    old: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(run.device)  # pyright: ignore[reportArgumentType]
    ours, theirs = known_words(folder, run.processor)
    words, old_words = run.trainee.lm.embed_tokens.weight, old.get_input_embeddings().weight.detach()
    lengths = old_words[theirs].norm(dim=1)
    with torch.no_grad():
        words *= lengths.mean() / words.norm(dim=1, keepdim=True)
        words[ours] = old_words[theirs]
    features, before, true = _said(run, old)
    nearest = ours.to(run.device)[(F.normalize(before, dim=1) @ F.normalize(old_words[theirs], dim=1).T).argmax(1)]
    right = (nearest == true.noun) | ((true.noun < 0) & (true.word < 0))
    spread = before.std(0)
    new = [*run.trainee.projector.parameters(), words, *heads.parameters()]
    optimiser = torch.optim.AdamW(new, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.1)
    for step in tqdm(range(STEPS), desc="anchor", mininterval=10):
        rows = torch.randint(len(features), (ROWS,), device=run.device)
        with torch.autocast(run.device.type, torch.bfloat16):
            visual = run.trainee.project(features[rows].float())
            loss, figures = heads.loss(visual, words, true[rows])
        off = distance(visual, before[rows], spread, right[rows])
        (loss + off).backward()
        assert words.grad is not None
        words.grad[ours] = 0
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if step % 100 == 0 or step + 1 == STEPS:
            run.write(stage="anchor", step=step, off=off.detach(), right=right.float().mean(), **figures)
    fresh = torch.ones(len(words), dtype=torch.bool).index_fill(0, ours, False)
    with torch.no_grad():
        words[fresh] *= lengths.mean() / words[fresh].norm(dim=1, keepdim=True)


def distance(
    visual: Float[Tensor, "rows width"],
    before: Float[Tensor, "rows width"],
    spread: Float[Tensor, " width"],
    right: Bool[Tensor, " rows"],
) -> Tensor:
    """Return the mean squared distance, in units of each channel's spread."""
    weight = torch.where(right, RIGHT, WRONG)[:, None]
    return (weight * ((visual.float() - before) / spread).square()).mean()


@torch.no_grad()
def _said(run: Run, old: LlavaForConditionalGeneration) -> tuple[Tensor, Tensor, Patches]:
    """Return features of the new tower, version 1's visual tokens of the same views, and the truth about the patches.
    Half of the patches show a thing."""
    args = run.args
    tower, projector = old.model.vision_tower, old.model.multi_modal_projector
    encoder = Encoder(tower, run.positions)
    make = PatchFeed(args.sources, args.seed, args.patch_tokens, 256, MOST_THINGS)
    features, before, told = [], [], []
    steps = range(-2 * BATCHES, -BATCHES)
    for step, (scenes, truth) in zip(steps, tqdm(feed(make, steps, args.workers), total=BATCHES), strict=True):
        known, empty = (truth.noun >= 0).nonzero()[:, 0], (truth.noun < 0).nonzero()[:, 0]
        rows = torch.cat([known, empty[torch.randperm(len(empty))[: len(known)]]])
        told.append(truth[rows])
        rows = rows.to(run.device)
        features.append(run.encode(scenes, random.Random(step)).flatten(0, 1)[rows])
        theirs = encoder([scene.pixels for scene in scenes], random.Random(step), run.jitter).flatten(0, 1)[rows]
        before.append(projector.linear_2(projector.act(projector.linear_1(theirs))))
    return torch.cat(features), torch.cat(before), Patches.together(told).to(run.device)
