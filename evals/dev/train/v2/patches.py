"""Stage one: the tower's upper blocks and the projector learn what covers each patch, how far it reaches, what it says.

LLaVA aligns with captions. Drawn scenes come with more: the thing that covers each patch, its box and its word. A patch
that knows how far its thing reaches leaves the language model to find the patch and to say where it is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LlavaProcessor

from tokenprune.evals.dev.train.v2.draw import Scene
from tokenprune.evals.dev.train.v2.losses import TEMPERATURE, Trainee
from tokenprune.evals.dev.train.v2.pack import UNASKED, Packer, patch_nouns
from tokenprune.evals.dev.train.v2.words import SIGN_WORDS

FROZEN_BLOCKS = 4
LOWER_RATE, UPPER_RATE = 2e-4, 2e-3  # of the tower's blocks, and of what is new


@dataclass(frozen=True)
class Patches:
    """Of every patch: its noun's and its word's token ID or -100, its distances to its thing's edges in fractions of
    the image and in patches, and whether it is the one nearest to the thing's centre."""

    noun: Int[Tensor, " rows"]
    word: Int[Tensor, " rows"]
    reach: Float[Tensor, "rows 8"]
    central: Float[Tensor, " rows"]


class PatchHeads(nn.Module):
    """What reads a visual token in stage one and is thrown away afterwards."""

    def __init__(self, width: int):
        super().__init__()
        self.nothing = nn.Parameter(torch.randn(1, width) * 0.02)
        self.reading = nn.Linear(width, width)
        self.reach = nn.Linear(width, 8)
        self.central = nn.Linear(width, 1)

    def loss(self, visual: Float[Tensor, "rows width"], words: Tensor, truth: Patches) -> tuple[Tensor, dict]:
        """Background patches are as many as the others: the rest of them would drown the nouns."""
        known = truth.noun >= 0
        empty = (~known).nonzero()[:, 0]
        empty = empty[torch.randperm(len(empty))[: int(known.sum())]]
        rows = torch.cat([visual[known], visual[empty]]).float()
        classes = F.normalize(torch.cat([words, self.nothing]), dim=-1)
        target = torch.cat([truth.noun[known], torch.full_like(empty, len(words))])
        logits = TEMPERATURE * F.normalize(rows, dim=-1) @ classes.T
        noun = F.cross_entropy(logits, target)
        reach = F.smooth_l1_loss(self.reach(visual[known]).float(), truth.reach[known], beta=0.1)
        central = F.binary_cross_entropy_with_logits(
            self.central(visual[known]).float()[:, 0], truth.central[known], pos_weight=torch.tensor(5.0)
        )
        word = noun.new_zeros(())
        says = truth.word >= 0
        right = {"noun": (logits.argmax(-1) == target)[: int(known.sum())].float().mean()}
        if says.any():
            read = TEMPERATURE * F.normalize(self.reading(visual[says]).float(), dim=-1) @ F.normalize(words, dim=-1).T
            word = F.cross_entropy(read, truth.word[says])
            right["word"] = (read.argmax(-1) == truth.word[says]).float().mean()
        right["reach"] = (self.reach(visual[known]).float() - truth.reach[known])[:, :4].abs().mean()
        return noun + 3 * reach + 0.3 * central + 0.5 * word, right


class PatchTruth:
    def __init__(self, packer: Packer, processor: LlavaProcessor):
        self.noun_ids = packer.noun_ids
        ids = processor.tokenizer.convert_tokens_to_ids(list(SIGN_WORDS))
        self.word_ids: dict[str, int] = dict(zip(SIGN_WORDS, ids, strict=True))

    def __call__(self, scenes: list[Scene]) -> Patches:
        parts = [self._of(scene) for scene in scenes]
        return Patches(*(torch.cat([getattr(part, name) for part in parts]) for name in Patches.__dataclass_fields__))

    def _of(self, scene: Scene) -> Patches:
        owner = torch.from_numpy(scene.owner).flatten().long()
        words = torch.tensor([*(self.word_ids.get(t.word or "", UNASKED) for t in scene.things), UNASKED])
        boxes = torch.tensor([*(t.box for t in scene.things), (0.0, 0.0, 0.0, 0.0)])[owner]
        rows, columns = scene.shape
        grid = np.mgrid[:rows, :columns].reshape(2, -1) + 0.5
        y, x = torch.from_numpy(grid[0] / rows).float(), torch.from_numpy(grid[1] / columns).float()
        reach = torch.stack([x - boxes[:, 0], y - boxes[:, 1], boxes[:, 2] - x, boxes[:, 3] - y], 1)
        central = torch.zeros(len(owner))
        off = (reach[:, 2] - reach[:, 0]) ** 2 + (reach[:, 3] - reach[:, 1]) ** 2
        for index in owner.unique().tolist():
            if index >= 0:
                central[torch.where(owner == index, off, torch.inf).argmin()] = 1
        in_patches = reach * torch.tensor([columns, rows, columns, rows]) / 4  # so that both are of one size
        return Patches(patch_nouns(scene, self.noun_ids), words[owner], torch.cat([2 * reach, in_patches], 1), central)


def patch_optimiser(blocks: nn.Module, trainee: Trainee, heads: PatchHeads) -> torch.optim.Optimizer:
    new = [*trainee.projector.parameters(), trainee.lm.embed_tokens.weight, *heads.parameters()]
    groups = [
        {"params": list(blocks.parameters()), "lr": LOWER_RATE, "weight_decay": 0.05, "most": LOWER_RATE},
        {"params": new, "lr": UPPER_RATE, "weight_decay": 0.0, "most": UPPER_RATE},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def patch_rng(seed: int, step: int) -> random.Random:
    return random.Random(f"{seed} patches {step}")
