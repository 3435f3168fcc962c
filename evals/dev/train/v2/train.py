"""Train version 2: `python -m tokenprune.evals.dev.train.v2` does both stages and goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from tokenprune.evals.dev.train.tower import load_tower, native_positions
from tokenprune.evals.dev.train.train import export
from tokenprune.evals.dev.train.v2 import state
from tokenprune.evals.dev.train.v2.assets import load_assets
from tokenprune.evals.dev.train.v2.check import check, checking_batches
from tokenprune.evals.dev.train.v2.draw import draw_scene
from tokenprune.evals.dev.train.v2.encode import STORED_SIDE, Encoder, Jitter
from tokenprune.evals.dev.train.v2.grids import choose_grid, images_of
from tokenprune.evals.dev.train.v2.losses import Trainee
from tokenprune.evals.dev.train.v2.model import build_model, build_processor, standardise
from tokenprune.evals.dev.train.v2.pack import TEXT_LENGTH, Packer, Seen
from tokenprune.evals.dev.train.v2.patches import FROZEN_BLOCKS, PatchHeads, PatchTruth, patch_optimiser, patch_rng

BLOCKS, IMAGE_SIZE = 8, STORED_SIDE * 14
MOST_THINGS = 6


class Run:
    """Everything that a run holds; `train` takes it through both stages."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        torch.manual_seed(args.seed)
        onnx_file = args.sources / "vit_s_focus.onnx"
        self.processor = build_processor()
        tower = load_tower(onnx_file, blocks=BLOCKS, image_size=IMAGE_SIZE)
        self.model = build_model(tower, self.processor, args.seed)
        self.tower = self.model.model.vision_tower
        self.encoder = Encoder(self.tower, native_positions(onnx_file))
        self.packer = Packer(self.processor)
        self.trainee = Trainee(self.model, self.packer.head, self.processor.tokenizer.convert_tokens_to_ids("00"))
        self.assets = load_assets(args.sources, held_out_things=False, held_out_backgrounds=False)
        self.jitter = Jitter()
        self.pool: dict[tuple[int, int], list[Seen]] = {}
        self.log = (args.output / "log.jsonl").open("a")

    def write(self, **row: Any) -> None:
        self.log.write(json.dumps({"at": time.strftime("%H:%M:%S"), **row}) + "\n")
        self.log.flush()

    def scenes(self, rng: random.Random, grid: tuple[int, int], number: int, most: int) -> list:
        return [draw_scene(rng, self.assets, grid, most) for _ in range(number)]

    def draw(self, rng: random.Random, grid: tuple[int, int], number: int, most: int) -> list[Seen]:
        """Scenes of a grid, some of them new and the others from the last that were drawn for it."""
        pool = self.pool.setdefault(grid, [])
        scenes = self.scenes(rng, grid, max(round(self.args.fresh * number), number - len(pool)), most)
        with torch.no_grad():
            features = self.encoder([scene.pixels for scene in scenes], rng, self.jitter).bfloat16()
        new = [Seen(scene, one) for scene, one in zip(scenes, features, strict=True)]
        old = rng.sample(pool, number - len(new))
        self.pool[grid] = (pool + new)[-self.args.pool :]
        return new + old


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
    else:
        start = saved["step"]
        _load(run, saved)
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
            loss, right = heads.loss(visual.flatten(0, 1), run.trainee.lm.embed_tokens.weight, truth(scenes))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if step % 20 == 0:
            figures = {name: round(value.item(), 4) for name, value in right.items()}
            seconds = round(time.time() - began, 2)
            run.write(stage=1, step=step, grid=grid, seconds=seconds, loss=round(loss.item(), 3), **figures)
        if (step + 1) % args.save_every == 0 or step + 1 == steps:
            held = {"heads": heads.state_dict(), "optimisers": [optimiser.state_dict()]}
            state.save(args.output, 1, step + 1, {**_weights(run), **held})
    run.tower.requires_grad_(False)


def learn_answers(run: Run, saved: dict[str, Any] | None) -> None:
    """Stage two, the tower frozen. The rate is flat until the last `cooldown` steps, so that `steps` may grow."""
    args = run.args
    optimisers = answer_optimisers(run.trainee)
    start = 0
    if saved is not None:
        start = saved["step"]
        _load(run, saved)
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
            state.save(args.output, 2, step + 1, {**_weights(run), "optimisers": [o.state_dict() for o in optimisers]})
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


def _weights(run: Run) -> dict[str, Any]:
    return {"tower": run.tower.state_dict(), "trainee": run.trainee.state_dict()}


def _load(run: Run, saved: dict[str, Any]) -> None:
    run.tower.load_state_dict(saved["tower"])
    run.trainee.load_state_dict(saved["trainee"])
