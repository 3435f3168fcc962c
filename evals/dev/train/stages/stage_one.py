"""Stage one: the new parts learn from the features of a frozen tower, then together with its upper blocks."""

from __future__ import annotations

import random
import time
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from tokenprune.evals.dev.train import state
from tokenprune.evals.dev.train.batches.feed import PatchFeed, feed
from tokenprune.evals.dev.train.batches.patches import Patches, PatchHeads
from tokenprune.evals.dev.train.losses import Trainee
from tokenprune.evals.dev.train.run import Run
from tokenprune.evals.dev.train.stages.anchor import anchor

FROZEN_BLOCKS = 4
MOST_THINGS = 8  # more than in stage two: here they cost nothing
WARM_ROWS = 1024


def warm_up(run: Run, heads: PatchHeads) -> None:
    """Before stage one, train all new parts on features of the frozen tower, which are computed once."""
    args, rng = run.args, random.Random(run.args.seed)
    make = PatchFeed(args.sources, args.seed, args.patch_tokens, 256, MOST_THINGS)
    kept: list[torch.Tensor] = []
    told: list[Patches] = []
    steps = range(-args.warm_batches, 0)
    for scenes, truth in tqdm(feed(make, steps, args.workers), desc="features", total=len(steps), mininterval=10):
        known, empty = (truth.noun >= 0).nonzero()[:, 0], (truth.noun < 0).nonzero()[:, 0]
        rows = torch.cat([known, empty[torch.randperm(len(empty))[: len(known)]]])
        kept.append(run.encode(scenes, rng).flatten(0, 1)[rows.to(run.device)])
        told.append(truth[rows])
    features, true = torch.cat(kept), Patches.together(told).to(run.device)
    new = [run.trainee.lm.embed_tokens.weight, *heads.parameters()]
    optimiser = torch.optim.AdamW(new, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=args.warm_steps, pct_start=0.1)
    for step in tqdm(range(args.warm_steps), desc="warm-up", mininterval=10):
        rows = torch.randint(len(features), (WARM_ROWS,), device=run.device)
        with torch.autocast(run.device.type, torch.bfloat16):
            visual = run.trainee.project(features[rows].float())
        loss, figures = heads.loss(visual, run.trainee.lm.embed_tokens.weight, true[rows])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if step % 100 == 0 or step + 1 == args.warm_steps:
            run.write(stage=0, step=step, **figures)


def learn_patches(run: Run, saved: dict[str, Any] | None) -> bool:
    """Run stage one. Returns False if it stopped because time was up.

    The learning rate rises for a tenth of the steps and falls for the last half.
    """
    args, steps = run.args, run.args.patch_steps
    blocks = run.tower.encoder.layer[FROZEN_BLOCKS:].requires_grad_(True)
    heads = PatchHeads(run.trainee.lm.config.hidden_size).to(run.device)
    optimiser = patch_optimiser(blocks, run.trainee, heads, args.tower_rate, args.patch_rate)
    start = 0
    if saved is None:
        warm_up(run, heads)
        state.save(args.output, 1, 0, stage_one_state(run, heads, optimiser))
    else:
        start = saved["step"]
        run.load_weights(saved)
        heads.load_state_dict(saved["heads"])
        optimiser.load_state_dict(saved["optimisers"][0])
    make = PatchFeed(args.sources, args.seed, args.patch_tokens, 576, MOST_THINGS)
    began = time.time()
    fed = zip(range(start, steps), feed(make, range(start, steps), args.workers), strict=True)
    for step, (scenes, truth) in tqdm(fed, initial=start, total=steps, desc="patches", mininterval=10):
        factor = min(1.0, (step + 1) / (0.1 * steps), (steps - step) / (0.5 * steps))
        for group in optimiser.param_groups:
            group["lr"] = group["most"] * factor
        pixels, rng = [scene.pixels for scene in scenes], random.Random(f"{args.seed} view {step}")
        with torch.autocast(run.device.type, torch.bfloat16):
            visual = run.trainee.project(run.encoder(pixels, rng, run.jitter, FROZEN_BLOCKS))
            words = run.trainee.lm.embed_tokens.weight
            loss, figures = heads.loss(visual.flatten(0, 1), words, truth.to(run.device))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if step % 20 == 0:
            run.write(stage=1, step=step, grid=scenes[0].shape, seconds=round(time.time() - began, 2), **figures)
        done, began = step + 1 == steps or run.time_is_up(), time.time()
        if (step + 1) % args.save_every == 0 or done:
            state.save(args.output, 1, step + 1, stage_one_state(run, heads, optimiser))
        if done and step + 1 < steps:
            return False
    run.tower.requires_grad_(False)
    anchor(run, heads)
    return True


def stage_one_state(run: Run, heads: PatchHeads, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    return {**run.weights(), "heads": heads.state_dict(), "optimisers": [optimiser.state_dict()]}


def patch_optimiser(
    blocks: nn.Module, trainee: Trainee, heads: PatchHeads, tower_rate: float, patch_rate: float
) -> torch.optim.Optimizer:
    new = [*trainee.projector.parameters(), trainee.lm.embed_tokens.weight, *heads.parameters()]
    groups = [
        {"params": list(blocks.parameters()), "lr": tower_rate, "weight_decay": 0.05, "most": tower_rate},
        {"params": new, "lr": patch_rate, "weight_decay": 0.0, "most": patch_rate},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))
