"""What stage one teaches about each patch: the thing that covers it, how far the thing reaches, and what it says.

LLaVA aligns with captions. Drawn scenes offer more: the thing that covers each patch, its box and its word. If a patch
knows how far its thing reaches, the language model only has to find the patch and say where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenprune.evals.dev.train.batches.pack import UNASKED, Packer, patch_nouns
from tokenprune.evals.dev.train.scenes.draw import Scene
from tokenprune.evals.dev.train.vocabulary.words import SIGN_WORDS

TEMPERATURE = 14.0  # of cosines, as logits
NO_LETTER = 26


@dataclass(frozen=True)
class Patches:
    """The truth about patches. noun, word: token IDs or -100. reach: distances to the thing's edges, in fractions of
    the image and in patches. central: whether this patch is nearest to the thing's centre. share: its share of the
    thing. letters: of a sign, the letters before, on and after the patch, 26 for none."""

    noun: Int[Tensor, " rows"]
    word: Int[Tensor, " rows"]
    reach: Float[Tensor, "rows 8"]
    central: Float[Tensor, " rows"]
    share: Float[Tensor, " rows"]
    letters: Int[Tensor, "rows 3"]

    def to(self, device: torch.device) -> Patches:
        return Patches(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __getitem__(self, rows: Tensor) -> Patches:
        return Patches(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def together(parts: Sequence[Patches]) -> Patches:
        return Patches(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Patches)))


class PatchHeads(nn.Module):
    """Heads that read visual tokens in stage one, and are discarded afterwards."""

    def __init__(self, width: int):
        super().__init__()
        self.nothing = nn.Parameter(torch.randn(1, width) * 0.02)
        self.reading = nn.Linear(width, width)
        self.reach = nn.Linear(width, 8)
        self.central = nn.Linear(width, 1)
        self.letters = nn.Linear(width, 3 * (NO_LETTER + 1))

    def loss(
        self, visual: Float[Tensor, "rows width"], words: Tensor, truth: Patches
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts and accuracies for the log. Every thing counts the same, large or small."""
        known = truth.noun >= 0
        visual, words = visual.float(), F.normalize(words, dim=-1)
        share = truth.share[known] / truth.share[known].sum()
        classes = torch.cat([words, F.normalize(self.nothing, dim=-1)])
        logits = TEMPERATURE * F.normalize(visual, dim=-1) @ classes.T
        nothing = torch.full_like(truth.noun[~known], len(words))
        naming = (F.cross_entropy(logits[known], truth.noun[known], reduction="none") * share).sum()
        background = F.cross_entropy(logits[~known], nothing)
        off = F.smooth_l1_loss(self.reach(visual[known]), truth.reach[known], beta=0.1, reduction="none")
        reach = (off.mean(1) * share).sum()
        central = F.binary_cross_entropy_with_logits(
            self.central(visual[known])[:, 0], truth.central[known], pos_weight=truth.share.new_tensor(5.0)
        )
        figures = {"naming": naming, "background": background, "reach": reach, "central": central}
        figures["noun"] = ((logits[known].argmax(-1) == truth.noun[known]) * share).sum()
        says = truth.word >= 0
        reading = naming.new_zeros(())
        if says.any():
            read = TEMPERATURE * F.normalize(self.reading(visual[says]), dim=-1) @ words.T
            spelled = self.letters(visual[says]).unflatten(1, (3, -1)).transpose(1, 2)  # (rows, letter, place)
            spelling = F.cross_entropy(spelled, truth.letters[says])
            figures |= {"reading": F.cross_entropy(read, truth.word[says]), "spelling": spelling}
            figures["word"] = (read.argmax(-1) == truth.word[says]).float().mean()
            figures["letter"] = (spelled.argmax(1) == truth.letters[says])[:, 1].float().mean()
            reading = figures["reading"] + spelling
        return naming + background + 5 * reach + 0.3 * central + reading, figures


class PatchTruth:
    def __init__(self, packer: Packer):
        self.noun_ids = packer.noun_ids
        ids = packer.tokenizer.convert_tokens_to_ids(list(SIGN_WORDS))
        self.word_ids: dict[str, int] = dict(zip(SIGN_WORDS, ids, strict=True))

    def __call__(self, scenes: list[Scene]) -> Patches:
        return Patches.together([self._of(scene) for scene in scenes])

    def _of(self, scene: Scene) -> Patches:
        owner = torch.from_numpy(scene.owner).flatten().long()
        words = torch.tensor([*(self.word_ids.get(t.word or "", UNASKED) for t in scene.things), UNASKED])
        boxes = torch.tensor([*(t.box for t in scene.things), (0.0, 0.0, 0.0, 0.0)])[owner]
        rows, columns = scene.shape
        grid = np.mgrid[:rows, :columns].reshape(2, -1) + 0.5
        y, x = torch.from_numpy(grid[0] / rows).float(), torch.from_numpy(grid[1] / columns).float()
        reach = torch.stack([x - boxes[:, 0], y - boxes[:, 1], boxes[:, 2] - x, boxes[:, 3] - y], 1)
        central, share = torch.zeros(len(owner)), torch.zeros(len(owner))
        off = (reach[:, 2] - reach[:, 0]) ** 2 + (reach[:, 3] - reach[:, 1]) ** 2
        for index in owner.unique().tolist():
            if index >= 0:
                central[torch.where(owner == index, off, torch.inf).argmin()] = 1
                share[owner == index] = 1 / (owner == index).sum()
        in_patches = reach * torch.tensor([columns, rows, columns, rows]) / 4  # so that both have about the same scale
        both = torch.cat([2 * reach, in_patches], 1)
        letters = torch.full((len(owner), 3), NO_LETTER)
        for index, thing in enumerate(scene.things):
            if thing.word is not None:
                of_sign = (owner == index).nonzero()[:, 0]
                across = reach[of_sign, 0] / (reach[of_sign, 0] + reach[of_sign, 2])
                at = torch.searchsorted(torch.tensor(thing.edges), across, right=True)  # 0 before the first letter
                spelled = [ord(letter) - ord("a") for letter in thing.word]
                padded = torch.tensor([NO_LETTER, NO_LETTER, *spelled, NO_LETTER, NO_LETTER])
                letters[of_sign] = padded[at[:, None] + torch.arange(3)]
        return Patches(patch_nouns(scene, self.noun_ids), words[owner], both, central, share, letters)
