"""Draw scenes: cut-outs of known things, pasted without overlap on crops of background photographs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageEnhance

from tokenprune.evals.dev.train.scenes.color import color_word

SIDE = 224  # px; a scene is square
GRID = 16  # patches per side
SOLID = 40  # alpha above which a pixel belongs to the thing


@dataclass(frozen=True)
class CutOut:
    """One thing with transparent surroundings, cropped to its own extent."""

    noun: str
    file: str
    picture: Image.Image  # RGBA

    @cached_property
    def color(self) -> str | None:
        """The colour word for this thing; None if no single colour covers most of it."""
        return color_word(np.asarray(self.picture))


@dataclass(frozen=True)
class Thing:
    """A cut-out in a scene. The box is x1, y1, x2, y2 in px."""

    noun: str
    file: str
    color: str | None
    box: tuple[int, int, int, int]

    @property
    def center(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def area(self) -> int:
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)


@dataclass(frozen=True)
class Scene:
    pixels: np.ndarray  # (224, 224, 3) uint8
    things: tuple[Thing, ...]
    owner: np.ndarray  # (16, 16) int8: index of the thing that covers most of a patch, -1 for background


def draw_scene(rng: random.Random, cutouts: list[CutOut], backgrounds: list[Image.Image], count: int) -> Scene:
    """Draw up to `count` things on a random crop of a random background.

    Half of the scenes with at least three things have two of one noun, so that "the larger X" and "the left X" are
    needed. Things without a free place after 30 tries are left out.
    """
    canvas = _background(rng, rng.choice(backgrounds))
    owner = np.full((SIDE, SIDE), -1, np.int8)
    things: list[Thing] = []
    for cutout in _choose(rng, cutouts, count):
        patch = _varied(rng, cutout.picture, crowd=count)
        alpha = np.asarray(patch)[:, :, 3] > SOLID
        rows, columns = np.where(alpha.any(1))[0], np.where(alpha.any(0))[0]
        if len(rows) < 8 or len(columns) < 8:
            continue
        for _ in range(30):
            x, y = rng.randrange(0, SIDE - patch.width + 1), rng.randrange(0, SIDE - patch.height + 1)
            box = (x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1)
            if any(_touch(box, other.box) for other in things):
                continue
            canvas.paste(patch, (x, y), patch)
            owner[y : y + patch.height, x : x + patch.width][alpha] = len(things)
            things.append(Thing(cutout.noun, cutout.file, cutout.color, box))
            break
    return Scene(np.asarray(canvas), tuple(things), _patch_owner(owner, len(things)))


def _choose(rng: random.Random, cutouts: list[CutOut], count: int) -> list[CutOut]:
    by_noun: dict[str, list[CutOut]] = {}
    for cutout in cutouts:
        by_noun.setdefault(cutout.noun, []).append(cutout)
    nouns = rng.sample(sorted(by_noun), count)
    if count >= 3 and rng.random() < 0.5:
        nouns[1] = nouns[0]
    return [rng.choice(by_noun[noun]) for noun in nouns]


def _background(rng: random.Random, photograph: Image.Image) -> Image.Image:
    side = int(min(photograph.size) * rng.uniform(0.35, 1.0))
    x, y = rng.randrange(0, photograph.width - side + 1), rng.randrange(0, photograph.height - side + 1)
    crop = photograph.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side), reducing_gap=2)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return ImageEnhance.Brightness(crop).enhance(rng.uniform(0.8, 1.2))


def _varied(rng: random.Random, picture: Image.Image, crowd: int) -> Image.Image:
    largest = 0.6 if crowd <= 2 else 0.45
    scale = SIDE * rng.uniform(0.2, largest) / max(picture.size)
    size = (max(8, round(picture.width * scale)), max(8, round(picture.height * scale)))
    patch = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
    if rng.random() < 0.5:
        patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    red, green, blue, alpha = patch.split()
    lit = ImageEnhance.Brightness(Image.merge("RGB", (red, green, blue))).enhance(rng.uniform(0.8, 1.2))
    return Image.merge("RGBA", (*lit.split(), alpha))


def _touch(a: tuple[int, ...], b: tuple[int, ...], gap: int = 4) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def _patch_owner(owner: np.ndarray, things: int) -> np.ndarray:
    cell = SIDE // GRID
    tiles = owner.reshape(GRID, cell, GRID, cell)
    shares = np.stack([(tiles == i).mean((1, 3)) for i in range(things)] or [np.zeros((GRID, GRID))])
    best = shares.argmax(0).astype(np.int8)
    return np.where(shares.max(0) > 0.35, best, np.int8(-1))
