"""Stage one of version 2: what is new learns from a frozen tower's features, then the tower's upper blocks with it."""

from __future__ import annotations

import random
import time
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from tokenprune.evals.dev.train.v2 import state
from tokenprune.evals.dev.train.v2.grids import choose_grid, images_of
from tokenprune.evals.dev.train.v2.losses import Trainee
from tokenprune.evals.dev.train.v2.model import standardise
from tokenprune.evals.dev.train.v2.patches import Patches, PatchHeads, PatchTruth
from tokenprune.evals.dev.train.v2.run import Run

FROZEN_BLOCKS = 4
LOWER_RATE, UPPER_RATE = 2e-4, 1e-3  # of the tower's blocks, and of what is new
MOST_THINGS = 8  # more than later: here they cost nothing


def warm_up(run: Run, heads: PatchHeads, truth: PatchTruth) -> None:
    """Before stage one: all that is new learns from features of the frozen tower, which are computed once."""
    args, rng = run.args, patch_rng(run.args.seed, -2)
    kept: list[torch.Tensor] = []
    told: list[Patches] = []
    for _ in tqdm(range(args.warm_scenes // 16), desc="features", mininterval=10):
        scenes = run.scenes(rng, choose_grid(rng, 256), 16, MOST_THINGS)
        with torch.no_grad():
            features = run.encoder([s.pixels for s in scenes], rng, run.jitter).bfloat16().flatten(0, 1)
        true = truth(scenes)
        known, empty = true.noun >= 0, (true.noun < 0).nonzero()[:, 0]
        rows = torch.cat([known.nonzero()[:, 0], empty[torch.randperm(len(empty))[: int(known.sum())]]])
        kept.append(features[rows])
        told.append(true[rows])
    features, true = torch.cat(kept), Patches.together(told)
    new = [*run.trainee.projector.parameters(), run.trainee.lm.embed_tokens.weight, *heads.parameters()]
    optimiser = torch.optim.AdamW(new, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=args.warm_steps, pct_start=0.1)
    for step in tqdm(range(args.warm_steps), desc="warm-up", mininterval=10):
        rows = torch.randint(len(features), (1024,))
        with torch.autocast("cpu", torch.bfloat16):
            visual = run.trainee.project(features[rows].float())
        loss, figures = heads.loss(visual, run.trainee.lm.embed_tokens.weight, true[rows])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if step % 100 == 0 or step + 1 == args.warm_steps:
            run.write(stage=0, step=step, **{name: round(value.item(), 4) for name, value in figures.items()})


def learn_patches(run: Run, saved: dict[str, Any] | None) -> None:
    """Stage one. The learning rate rises for a tenth of the steps and falls for the last half."""
    args, steps = run.args, run.args.patch_steps
    blocks = run.tower.encoder.layer[FROZEN_BLOCKS:].requires_grad_(True)
    heads = PatchHeads(run.trainee.lm.config.hidden_size)
    truth = PatchTruth(run.packer, run.processor)
    optimiser = patch_optimiser(blocks, run.trainee, heads)
    start = 0
    if saved is None:
        scenes = run.scenes(patch_rng(args.seed, -1), (16, 16), 16, MOST_THINGS)
        with torch.no_grad():
            features = run.encoder([scene.pixels for scene in scenes], random.Random(0), run.jitter)
        standardise(run.trainee.projector, features.flatten(0, 1))
        warm_up(run, heads, truth)
    else:
        start = saved["step"]
        run.load_weights(saved)
        heads.load_state_dict(saved["heads"])
        optimiser.load_state_dict(saved["optimisers"][0])
    for step in tqdm(range(start, steps), initial=start, total=steps, desc="patches", mininterval=10):
        began, rng = time.time(), patch_rng(args.seed, step)
        grid = choose_grid(rng, 576)
        scenes = run.scenes(rng, grid, images_of(grid, args.patch_tokens), MOST_THINGS)
        factor = min(1.0, (step + 1) / (0.1 * steps), (steps - step) / (0.5 * steps))
        for group in optimiser.param_groups:
            group["lr"] = group["most"] * factor
        with torch.autocast("cpu", torch.bfloat16):
            visual = run.trainee.project(run.encoder([s.pixels for s in scenes], rng, run.jitter, FROZEN_BLOCKS))
        loss, figures = heads.loss(visual.flatten(0, 1), run.trainee.lm.embed_tokens.weight, truth(scenes))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if step % 20 == 0:
            shown = {name: round(value.item(), 4) for name, value in figures.items()}
            run.write(stage=1, step=step, grid=grid, seconds=round(time.time() - began, 2), **shown)
        if (step + 1) % args.save_every == 0 or step + 1 == steps:
            held = {"heads": heads.state_dict(), "optimisers": [optimiser.state_dict()]}
            state.save(args.output, 1, step + 1, {**run.weights(), **held})
    run.tower.requires_grad_(False)


def patch_optimiser(blocks: nn.Module, trainee: Trainee, heads: PatchHeads) -> torch.optim.Optimizer:
    new = [*trainee.projector.parameters(), trainee.lm.embed_tokens.weight, *heads.parameters()]
    groups = [
        {"params": list(blocks.parameters()), "lr": LOWER_RATE, "weight_decay": 0.05, "most": LOWER_RATE},
        {"params": new, "lr": UPPER_RATE, "weight_decay": 0.0, "most": UPPER_RATE},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def patch_rng(seed: int, step: int) -> random.Random:
    return random.Random(f"{seed} patches {step}")
