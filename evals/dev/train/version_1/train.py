"""The training loop of version 1, run by `python -m tokenprune.evals.dev.train.version_1`."""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch import nn
from torchvision.ops import box_iou
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration

from tokenprune.evals.dev.train.start.dinov2 import load_tower, native_positions
from tokenprune.evals.dev.train.start.llava import build_model, build_processor, export
from tokenprune.evals.dev.train.version_1.assets import load_assets, nouns
from tokenprune.evals.dev.train.version_1.batches import Packer, SceneSource
from tokenprune.evals.dev.train.version_1.losses import Trainee
from tokenprune.evals.dev.train.version_1.scenes import GRID, SIDE
from tokenprune.evals.dev.train.version_1.stage_one import learn_patches

BLOCKS, IMAGE_SIZE = 8, SIDE


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tokenprune.evals.dev.train.version_1", description=__doc__)
    parser.add_argument("--sources", type=Path, default=Path("training/sources"), help="downloaded packages")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("training/version_1"),
        help="checkpoint, log and model; training resumes from it",
    )
    parser.add_argument("--steps", type=int, default=3100)
    parser.add_argument("--stage-one-steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=8, help="pictures per step")
    parser.add_argument("--fresh", type=int, default=3, help="how many of them are new")
    parser.add_argument("--muon-lr", type=float, default=2e-3)
    parser.add_argument("--adam-lr", type=float, default=1e-3)
    parser.add_argument("--aids-until", type=float, default=0.6, help="share of the steps with look and align losses")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--jitter", type=int, default=1, help="largest shift of the tower's position window, in patches"
    )
    return parser.parse_args()


def train(args: argparse.Namespace) -> None:
    args.output.mkdir(parents=True, exist_ok=True)
    onnx_file = args.sources / "vit_s_focus.onnx"
    tower, positions = load_tower(onnx_file, blocks=BLOCKS, image_size=IMAGE_SIZE), native_positions(onnx_file)
    processor = build_processor(nouns())
    model = build_model(tower, processor, args.seed)
    tower = model.model.vision_tower
    seen, unseen = (
        SceneSource(
            load_assets(args.sources, held_out_cutouts=False, held_out_backgrounds=held_out),
            tower,
            positions,
            processor,
            seed=args.seed + held_out,
            jitter=0 if held_out else args.jitter,
        )
        for held_out in (False, True)
    )
    packer = Packer(processor, args.seed)
    trainee = Trainee(model, packer.head, processor.tokenizer.convert_tokens_to_ids("00"))
    _standardise(trainee, seen)
    optimisers = _optimisers(trainee, args)
    start = _resume(args.output, model, trainee, optimisers, packer, seen)
    if start is None:
        learn_patches(tower, trainee, seen, packer, args.stage_one_steps)
        start = 0
        _save(args.output, start, model, trainee, optimisers, packer, seen)
    checking = [packer.pack(unseen.draw(8, most_things=5, pool_size=0, fresh=8)) for _ in range(8)]
    for layer in trainee.lm.layers:
        layer.compile()
    log = (args.output / "log.jsonl").open("a")
    bar = tqdm(range(start, args.steps), initial=start, total=args.steps, mininterval=5)
    for step in bar:
        began = time.time()
        _set_rates(optimisers, step, args)
        most = 1 + min(4, int(5 * step / (0.25 * args.steps)))  # one thing per scene at first, five after a quarter
        batch = packer.pack(seen.draw(args.batch, most_things=most, pool_size=2000, fresh=args.fresh))
        with torch.autocast("cpu", torch.bfloat16):
            losses = trainee(batch)
        aids = max(0.0, 1 - step / (args.aids_until * args.steps))
        total = losses.answer + 10.0 * losses.place + aids * (0.3 * losses.look + 0.2 * losses.align)
        total.backward()
        nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        row = {name: round(getattr(losses, name).item(), 4) for name in ("answer", "align", "look", "place")}
        bar.set_postfix(row, refresh=False)
        if step % 10 == 0:
            log.write(json.dumps({"step": step, "seconds": round(time.time() - began, 2), "most": most, **row}) + "\n")
            log.flush()
        if (step + 1) % 200 == 0 or step + 1 == args.steps:
            log.write(json.dumps({"step": step + 1, "checked": check(trainee, checking)}) + "\n")
            log.flush()
            _save(args.output, step + 1, model, trainee, optimisers, packer, seen)
            export(model, processor, args.output / "model")


def _standardise(trainee: Trainee, source: SceneSource) -> None:
    """Make the projector standardise features to mean 0 and deviation 1: raw DINOv2 features have a few huge
    channels."""
    features = (
        torch.stack([s.features for s in source.draw(16, most_things=5, pool_size=0, fresh=16)]).float().flatten(0, 1)
    )
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    first, second = trainee.projector.linear_1, trainee.projector.linear_2
    with torch.no_grad():
        nn.init.normal_(first.weight, std=first.in_features**-0.5)
        first.weight /= deviation
        first.bias.copy_(-first.weight @ mean)
        nn.init.normal_(second.weight, std=0.04 * (512 / second.in_features) ** 0.5)
        second.bias.zero_()


def _optimisers(trainee: Trainee, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the language model's matrices, AdamW for everything else."""
    matrices = [p for p in trainee.lm.layers.parameters() if p.ndim == 2]
    ids = {id(p) for p in matrices}
    others = [p for p in trainee.parameters() if p.requires_grad and id(p) not in ids]
    return [
        torch.optim.Muon(matrices, lr=args.muon_lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _set_rates(optimisers: list[torch.optim.Optimizer], step: int, args: argparse.Namespace) -> None:
    """Set the learning rates: they rise for 100 steps, are constant for a third, and fall to zero over the rest."""
    factor = min(1.0, (step + 1) / 100, (args.steps - step) / (0.65 * args.steps))
    for optimiser, rate in zip(optimisers, (args.muon_lr, args.adam_lr), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate * factor


@torch.no_grad()
def check(trainee: Trainee, batches: list) -> dict[str, float]:
    """Return accuracy by kind of question on unseen backgrounds, given the true earlier answer tokens: an upper
    bound."""
    right: dict[str, list[float]] = defaultdict(list)
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16):
            losses = trainee(batch)
        asked = batch.target >= 0
        kinds = [k for row in batch.kind for k in row if k]
        guess, truth = losses.logits.argmax(-1), batch.target[asked]
        right["place error, patches"].append(float(losses.place) * GRID / 2)
        at = 0
        while at < len(kinds):
            size = 5 if kinds[at] == "rec" else 2
            if size == 5:
                boxes = torch.stack([guess[at : at + 4], truth[at : at + 4]]).float() - trainee.first_number
                boxes[:, 2:] += 1
                right["rec"].append(float(box_iou(boxes[:1], boxes[1:]).item() >= 0.5))
            else:
                right[kinds[at]].append(float(guess[at] == truth[at]))
                right["vqa"].append(float(guess[at] == truth[at]))
            at += size
    return {kind: round(sum(v) / len(v), 3) for kind, v in sorted(right.items())}


def _save(
    folder: Path,
    step: int,
    model: LlavaForConditionalGeneration,
    trainee: Trainee,
    optimisers: list,
    packer: Packer,
    source: SceneSource,
) -> None:
    state = {
        "step": step,
        "tower": model.model.vision_tower.state_dict(),
        "trainee": trainee.state_dict(),
        "optimisers": [o.state_dict() for o in optimisers],
        "random": (packer.rng.getstate(), source.rng.getstate()),
    }
    torch.save(state, folder / "state.tmp")
    (folder / "state.tmp").replace(folder / "state.pt")  # a kill while writing leaves the old one intact


def _resume(
    folder: Path,
    model: LlavaForConditionalGeneration,
    trainee: Trainee,
    optimisers: list,
    packer: Packer,
    source: SceneSource,
) -> int | None:
    """Return the step to resume from; None if there is no checkpoint."""
    file = folder / "state.pt"
    if not file.exists():
        return None
    state = torch.load(file, weights_only=False)
    model.model.vision_tower.load_state_dict(state["tower"])
    trainee.load_state_dict(state["trainee"])
    for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    for rng, saved in zip((packer.rng, source.rng), state["random"], strict=True):
        rng.setstate(saved)
    return state["step"]
