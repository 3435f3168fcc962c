"""Stage two of version 2: the language model learns to answer, the tower frozen."""

from __future__ import annotations

import random
import time
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from tokenprune.evals.dev.train.train import export
from tokenprune.evals.dev.train.v2 import state
from tokenprune.evals.dev.train.v2.assets import load_assets
from tokenprune.evals.dev.train.v2.check import check, checking_batches
from tokenprune.evals.dev.train.v2.grids import choose_grid, images_of
from tokenprune.evals.dev.train.v2.losses import Trainee
from tokenprune.evals.dev.train.v2.pack import TEXT_LENGTH
from tokenprune.evals.dev.train.v2.run import Run

MOST_THINGS = 6


def learn_answers(run: Run, saved: dict[str, Any] | None) -> None:
    """Stage two, the tower frozen. The rate is flat until the last `cooldown` steps, so that `steps` may grow."""
    args = run.args
    optimisers = answer_optimisers(run.trainee)
    start = 0
    if saved is not None:
        start = saved["step"]
        run.load_weights(saved)
        for optimiser, one in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(one)
    known, unseen = (
        load_assets(args.sources, held_out_things=held_out, held_out_backgrounds=True) for held_out in (False, True)
    )
    checking = checking_batches(known, unseen, run.encoder, run.packer, MOST_THINGS)
    for step in tqdm(range(start, args.steps), initial=start, total=args.steps, mininterval=10):
        began, rng = time.time(), random.Random(f"{args.seed} answers {step}")
        # One thing a scene first, all of them from a while on; the small grids first, since they are cheap.
        most = 1 + min(MOST_THINGS - 1, step * MOST_THINGS // args.all_things_at)
        grid = choose_grid(rng, 256 if step < args.all_things_at else 576)
        number = images_of(grid, args.tokens, TEXT_LENGTH)
        batch = run.packer.pack(rng, run.draw(rng, grid, number, most))
        factor = min(1.0, (step + 1) / 100, (args.steps - step) / args.cooldown)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["most"] * factor
        aids = max(0.0, 1 - step / args.aids_until)
        with torch.autocast("cpu", torch.bfloat16):
            losses = run.trainee(batch, aids=aids > 0)
        (losses.answer + 10.0 * losses.place + aids * (0.3 * losses.look + 0.2 * losses.align)).backward()
        nn.utils.clip_grad_norm_(run.trainee.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        if step % 10 == 0:
            figures = {name: round(getattr(losses, name).item(), 4) for name in ("answer", "align", "look", "place")}
            seconds = round(time.time() - began, 2)
            run.write(stage=2, step=step, grid=grid, images=number, seconds=seconds, most=most, **figures)
        if (step + 1) % args.check_every == 0 or step + 1 == args.steps:
            for name, batches in checking.items():
                run.write(step=step + 1, set=name, checked=check(run.trainee, batches))
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            state.save(args.output, 2, step + 1, {**run.weights(), "optimisers": [o.state_dict() for o in optimisers]})
    export(run.model, run.processor, args.output / "model")


def answer_optimisers(trainee: Trainee, muon_rate: float = 2e-3, adam_rate: float = 1e-3) -> list:
    """Muon for the language model's matrices, AdamW for everything else."""
    matrices = [p for p in trainee.lm.layers.parameters() if p.ndim == 2]
    ids = {id(p) for p in matrices}
    others = [p for p in trainee.parameters() if p.requires_grad and id(p) not in ids]
    return [
        torch.optim.Muon(
            [{"params": matrices, "most": muon_rate}], lr=muon_rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW([{"params": others, "most": adam_rate}], lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
