"""The model's accuracy during training, on backgrounds that training never sees."""

from __future__ import annotations

import random
from collections import defaultdict

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import box_iou

from tokenprune.evals.dev.train.batches.encode import NO_JITTER, Encoder
from tokenprune.evals.dev.train.batches.pack import Batch, Packer
from tokenprune.evals.dev.train.losses import Trainee
from tokenprune.evals.dev.train.scenes.assets import Assets
from tokenprune.evals.dev.train.scenes.draw import draw_scene

Checking = list[tuple[Float[Tensor, "b visual d"], Batch]]

# name: grid, things never seen, scenes
SETS = {
    "16x16": ((16, 16), False, 64),
    "8x8": ((8, 8), False, 64),
    "12x16": ((12, 16), False, 32),
    "24x24": ((24, 24), False, 16),
    "16x16 unseen": ((16, 16), True, 64),
}


def checking_batches(
    known: Assets, unseen: Assets, encoder: Encoder, packer: Packer, most: int = 6
) -> dict[str, Checking]:
    """Return the scenes and questions of the check, the same every time."""
    by_name: dict[str, Checking] = {}
    for name, (grid, new, number) in SETS.items():
        rng = random.Random(f"check {name}")
        batches: Checking = []
        for _ in range(number // 8):
            scenes = [draw_scene(rng, unseen if new else known, grid, most, odd=False) for _ in range(8)]
            with torch.no_grad():
                features = encoder([scene.pixels for scene in scenes], rng, NO_JITTER)
            batches.append((features, packer.pack(rng, scenes).to(encoder.device)))
        by_name[name] = batches
    return by_name


@torch.no_grad()
def check(trainee: Trainee, batches: Checking) -> dict[str, float]:
    """Return accuracy by kind of question, given the true earlier answer tokens: an upper bound for generated
    answers."""
    right: dict[str, list[float]] = defaultdict(list)
    for features, batch in batches:
        with torch.autocast(features.device.type, torch.bfloat16):
            losses = trainee(features, batch, aids=False)
        guess, truth = losses.logits.argmax(-1).cpu(), batch.target[batch.target >= 0].cpu()
        right["loss"].append(float(losses.answer))
        at = 0
        for question in (question for row in batch.questions for question in row):
            box = question.kind.startswith("rec")
            size = 4 if box else len(question.answer.split())
            if box:
                boxes = torch.stack([guess[at : at + 4], truth[at : at + 4]]).float() - trainee.first_number
                boxes[:, 2:] += 1
                fine = float(box_iou(boxes[:1], boxes[1:]).item() >= 0.5)
            else:
                fine = float((guess[at : at + size] == truth[at : at + size]).all())
                right["vqa"].append(fine)
            right[question.kind].append(fine)
            at += size + 1  # plus the end of the sequence
    return {kind: round(sum(v) / len(v), 3) for kind, v in sorted(right.items())}
