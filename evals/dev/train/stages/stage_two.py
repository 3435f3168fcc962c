"""Stage two: the language model learns to answer, with a frozen tower."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tokenprune.evals.dev.train import state
from tokenprune.evals.dev.train.batches.feed import AnswerFeed, feed
from tokenprune.evals.dev.train.batches.pack import Batch
from tokenprune.evals.dev.train.check import check, checking_batches
from tokenprune.evals.dev.train.losses import Trainee
from tokenprune.evals.dev.train.run import Run
from tokenprune.evals.dev.train.scenes.assets import load_assets
from tokenprune.evals.dev.train.scenes.draw import MOST_ASKED, Scene
from tokenprune.evals.dev.train.stages.heads import fit_heads
from tokenprune.evals.dev.train.start.llava import export

#: Weights of the losses, relative to the answer's cross-entropy. What the heads read is off by a mean distance, in half
#: sides of the image, which is a small number: in the bundled model's log, 0.22 (place) and 0.27 (edges) beside an
#: answer loss of 2.3 at the first step, 0.04 and 0.09 beside 1.0 at the last. Ten and five times that weigh about as
#: much as the answers at first, and half as much in the end. The aids are cross-entropies like the answers', and count
#: half. They fade, so that in the end the answers alone decide where the model looks. No comparison with other weights
#: was recorded.
PLACE, EDGES, POINTS, AID = 10.0, 5.0, 5.0, 0.5
_NOTHING = np.zeros((0, 0, 3), np.uint8)


class Pool:
    """Scenes whose features are kept, so that later steps can ask other questions about them."""

    def __init__(self, size: int):
        self.size = size
        self.held: dict[tuple[int, int], list[tuple[Scene, Tensor]]] = {}

    def mix(self, rng: random.Random, scenes: list[Scene], features: Tensor, number: int) -> tuple[list[Scene], Tensor]:
        """Return the new scenes, filled up to `number` with kept ones of the same grid."""
        held = self.held.setdefault(scenes[0].shape, [])
        new = [(replace(scene, pixels=_NOTHING), grid) for scene, grid in zip(scenes, features, strict=True)]
        all_of_them = new + rng.sample(held, max(0, min(number - len(new), len(held))))
        held += new
        del held[: -self.size]
        return [scene for scene, _ in all_of_them], torch.stack([grid for _, grid in all_of_them])


def learn_answers(run: Run, saved: dict[str, Any] | None) -> bool:
    """Run stage two. Returns False if it stopped because time was up.

    The learning rate rises for 100 steps, and is constant until the last `cooldown` steps, so that `steps` can be
    increased.
    """
    args = run.args
    optimisers = answer_optimisers(run.trainee, args.muon_rate, args.adam_rate)
    start = step = 0
    if saved is not None:
        start = saved["step"]
        run.load_weights(saved)
        for optimiser, its_state in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(its_state)
    known = load_assets(args.sources, held_out_things=False, held_out_backgrounds=True)
    unseen = load_assets(args.sources, held_out_things=True, held_out_backgrounds=True)
    checking = checking_batches(known, unseen, run.encoder, run.packer, MOST_ASKED)
    make = AnswerFeed(args.sources, args.seed, args.tokens, MOST_ASKED, args.all_things_at, args.fresh)
    if saved is None:
        fit_heads(run, make.assets)
    pool = Pool(args.pool)
    began = time.time()
    fed = zip(range(start, args.steps), feed(make, range(start, args.steps), args.workers), strict=True)
    for step, (scenes, packed) in tqdm(fed, initial=start, total=args.steps, mininterval=10):
        rng = random.Random(f"{args.seed} pool {step}")
        features, batch = run.encode(scenes, rng), packed
        if batch is None:
            scenes, features = pool.mix(rng, scenes, features, make.number(scenes[0].shape))
            batch = run.packer.pack(rng, scenes)
        factor = min(1.0, (step + 1) / 100, (args.steps - step) / args.cooldown)
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = group["most"] * factor
        figures = learn(run, optimisers, step, features.float(), batch.to(run.device))
        if step % 10 == 0:
            seconds = round(time.time() - began, 2)
            run.write(stage=2, step=step, grid=batch.grid, images=len(features), seconds=seconds, **figures)
        done, began = step + 1 == args.steps or run.time_is_up(), time.time()
        if (step + 1) % args.check_every == 0 or done:
            for name, batches in checking.items():
                run.write(step=step + 1, set=name, checked=check(run.trainee, batches))
        if (step + 1) % args.save_every == 0 or done:
            held = [optimiser.state_dict() for optimiser in optimisers]
            state.save(args.output, 2, step + 1, {**run.weights(), "optimisers": held})
        if done:
            break
    export(run.model, run.processor, args.output / "model")
    return max(start, step + 1) >= args.steps


def learn(
    run: Run, optimisers: list[torch.optim.Optimizer], step: int, features: Tensor, batch: Batch
) -> dict[str, Tensor]:
    """Make one step, and return the losses for the log."""
    args = run.args
    aids = max(0.0, 1 - step / args.aids_until)
    with torch.autocast(run.device.type, torch.bfloat16):
        losses = run.trainee(features, batch, aids=aids > 0)
    read = PLACE * losses.place + EDGES * losses.edges + POINTS * losses.points
    aided = losses.look + losses.name + losses.recall + losses.count + losses.align
    (losses.answer + read + aids * AID * aided).backward()
    nn.utils.clip_grad_norm_(run.trainee.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()
    names = ("answer", "align", "look", "name", "recall", "count", "place", "edges", "points")
    return {name: getattr(losses, name).detach() for name in names}


def answer_optimisers(trainee: Trainee, muon_rate: float, adam_rate: float) -> list[torch.optim.Optimizer]:
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
