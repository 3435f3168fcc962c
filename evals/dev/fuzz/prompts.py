"""Random conversations: ragged batches, padding, text between images, rows without images, and further turns."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from tokenprune.evals.dev.fuzz.families import Family, Size


@dataclass
class Turn:
    """What one turn adds to every row: tokens, which of them are not padding, images, and the answer if it is given.

    tensors: the arguments with the images; empty if there are none.
    answer: (batch, length), at least one token long.
    """

    ids: Tensor
    real: Tensor
    tensors: dict[str, Any]
    answer: Tensor


def draw_turn(family: Family, rng: Random, batch: int, images: bool, padding: str, most: int = 3) -> Turn:
    """Return a random turn of `batch` rows. If `images`, at least one of them has an image."""
    items: list[list[Size]] = [[] for _ in range(batch)]
    while images and not any(items):
        items = [[family.item(rng) for _ in range(rng.choice(range(most + 1)))] for _ in range(batch)]
    rows = [_row(family, rng, row) for row in items]
    if rng.random() < 0.15:  # of equal length, so that nothing is padded
        rows = [rows[0]] * batch
        items = [items[0]] * batch
        if images and not items[0]:
            return draw_turn(family, rng, batch, images, padding, most)
    length = max(map(len, rows))
    ids, real = torch.full((batch, length), family.pad), torch.zeros(batch, length, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(length - len(row), None) if padding == "left" else slice(None, len(row))
        ids[number, place], real[number, place] = torch.tensor(row), 1
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    tensors = family.tensors(items, generator) if any(items) else {}
    answer = torch.tensor([_text(family, rng, 3) for _ in range(batch)])[:, : rng.randint(1, 3)]
    return Turn(ids, real, tensors, answer)


def _row(family: Family, rng: Random, items: list[Size]) -> list[int]:
    blocks = family.tiny.blocks(items) if items else []
    if family.kind.images_first:
        return [token for block in blocks for token in block] + _text(family, rng, rng.randint(1, 9))
    row = _text(family, rng, rng.choice([0, 1, 2, 5]))
    for block in blocks:
        row += block + _text(family, rng, rng.choice([0, 1, 2, 4]))
    return row + _text(family, rng, rng.randint(1, 6))


def _text(family: Family, rng: Random, length: int) -> list[int]:
    return [rng.choice(family.text) for _ in range(length)]
