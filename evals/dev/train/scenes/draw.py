"""Draw scenes: any number of things and signs of any size, on a crop of a background, for any grid."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from tokenprune.evals.dev.train.scenes.assets import SOLID, Assets, CutOut
from tokenprune.evals.dev.train.start.dinov2 import PATCH
from tokenprune.evals.dev.train.vocabulary.words import PLATES, SIGN_WORDS, Plate

DRAWN_SIDE = 224  # px of the longer side at least; scenes for smaller grids are drawn at this size, then shrunk
KINDS = {"mixed": 0.36, "count": 0.24, "text": 0.26, "small": 0.14}
SIGN = "sign"
MOST_ASKED = 6  # things in a scene that is asked about
_GAP = 0.012  # between two things, as a fraction of the longer side
_TRIES = 40


@dataclass(frozen=True)
class Thing:
    """A thing in a scene. The box is left, top, right, bottom in fractions of the scene.

    A sign has a `word` and `edges`: where each letter begins and the last one ends, in fractions of the box's width.
    """

    noun: str
    group: str
    file: str
    color: str | None
    box: tuple[float, float, float, float]
    word: str | None = None
    edges: tuple[float, ...] = ()

    @property
    def center(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def area(self) -> float:
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)


@dataclass(frozen=True)
class Scene:
    """`pixels`: the image at the size of the grid. `owner`: for each patch, the thing that covers most of it, or -1."""

    pixels: np.ndarray  # (14 rows, 14 columns, 3) uint8
    things: tuple[Thing, ...]
    owner: np.ndarray  # (rows, columns) int8

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.owner.shape
        return rows, columns


@dataclass
class _Canvas:
    image: Image.Image
    things: list[Thing]
    masks: list[tuple[int, int, np.ndarray]]  # left, top and solid pixels of each thing

    def place(self, rng: random.Random, patch: Image.Image) -> tuple[float, float, float, float] | None:
        """Paste in a free place, and return the exact box, from the alpha channel; None if no free place is found."""
        solid = np.asarray(patch)[:, :, 3] > SOLID
        rows, columns = np.where(solid.any(1))[0], np.where(solid.any(0))[0]
        width, height = self.image.size
        if not len(rows) or patch.width > width or patch.height > height:
            return None
        gap = _GAP * max(width, height)
        taken = [(x, y, x + m.shape[1], y + m.shape[0]) for x, y, m in self.masks]
        for _ in range(_TRIES):
            x, y = rng.randrange(width - patch.width + 1), rng.randrange(height - patch.height + 1)
            left, top = x + int(columns[0]), y + int(rows[0])
            right, bottom = x + int(columns[-1]) + 1, y + int(rows[-1]) + 1
            if any(left < c + gap and a < right + gap and top < d + gap and b < bottom + gap for a, b, c, d in taken):
                continue
            self.image.paste(patch, (x, y), patch)
            self.masks.append((left, top, solid[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))
            return left / width, top / height, right / width, bottom / height
        return None

    def scene(self, rows: int, columns: int) -> Scene:
        """Return the canvas at the size of a grid."""
        size = columns * PATCH, rows * PATCH
        scale = self.image.width // size[0]
        small = self.image if scale == 1 else self.image.resize(size, Image.Resampling.BICUBIC)
        shares = np.zeros((max(1, len(self.masks)), rows, columns), np.float32)
        cell = PATCH * scale
        for share, (left, top, mask) in zip(shares, self.masks, strict=False):
            full = np.zeros((rows * cell, columns * cell), np.float32)
            full[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
            share[:] = full.reshape(rows, cell, columns, cell).mean((1, 3))
        owner = np.where(shares.max(0) > 0.3, shares.argmax(0), -1).astype(np.int8)
        return Scene(np.asarray(small), tuple(self.things), owner)


def draw_scene(
    rng: random.Random,
    assets: Assets,
    shape: tuple[int, int],
    most: int,
    kind: str | None = None,
    *,
    odd: bool = True,
) -> Scene:
    """Return a scene of `shape` (rows, columns) with 1 to `most` things, of the given kind or one drawn by weight.

    The kinds are those in `KINDS`. mixed: different things, often two of one noun, so that "the larger X" is needed.
    count: several things of one noun, among others. text: one or two signs among things, or up to four in scenes that
    are not asked about. small: things of 6 to 14 % of the longer side, among larger ones. `odd`: whether things may be
    stretched, blurred or recoloured, for training.
    """
    rows, columns = shape
    scale = -(-DRAWN_SIDE // (PATCH * max(shape)))
    size = columns * PATCH * scale, rows * PATCH * scale
    kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
    while True:
        canvas = _Canvas(_background(rng, rng.choice(assets.backgrounds), size), [], [])
        number = rng.randint(1, most)
        if kind == "text":
            signs = rng.choice((2, 3, 4) if most > MOST_ASKED else (1, 1, 2))
            _add_signs(rng, assets, canvas, min(most, signs))
            number = rng.randint(0, max(1, min(2, most - 1)))
        same = number if kind == "count" else 1
        if kind == "count":
            number += rng.randint(0, min(2, most - number))
        elif number >= 3 and rng.random() < 0.6:
            same = 2
        low, high = _sizes(kind, number)
        for cutout in _choose(rng, assets, number, same):
            side = max(size) * low * (high / low) ** rng.random()
            if kind == "small" and rng.random() < 0.3:
                side = max(size) * rng.uniform(0.2, 0.35)
            patch, color = _varied(rng, cutout.image, side), cutout.color
            if odd:
                patch, color = _odd(rng, patch, color)
            box = canvas.place(rng, patch)
            if box is not None:
                canvas.things.append(Thing(cutout.noun.name, cutout.noun.group, cutout.file, color, box))
        if canvas.things:
            return canvas.scene(rows, columns)


def _sizes(kind: str, number: int) -> tuple[float, float]:
    if kind == "small":
        return 0.06, 0.14
    return 0.12, {0: 0.6, 1: 0.6, 2: 0.5, 3: 0.42, 4: 0.36}.get(number, 0.3)


def _choose(rng: random.Random, assets: Assets, number: int, same: int) -> Sequence[CutOut]:
    """Return `number` cut-outs, of which `same` are of one noun, and half of the time from one file."""
    if not number:
        return []
    names = rng.sample(sorted(assets.by_noun), 1 + number - same)
    one_file = rng.random() < 0.5
    first = assets.choose(rng, names[0])
    chosen = [first if one_file else assets.choose(rng, names[0]) for _ in range(same)]
    chosen += [assets.choose(rng, name) for name in names[1:]]
    rng.shuffle(chosen)
    return chosen


def _background(rng: random.Random, photograph: Image.Image, size: tuple[int, int]) -> Image.Image:
    width, height = size
    scale = min(photograph.width / width, photograph.height / height) * rng.uniform(0.4, 1.0)
    wide, tall = scale * width, scale * height
    x, y = rng.uniform(0, photograph.width - wide), rng.uniform(0, photograph.height - tall)
    crop = photograph.resize(size, Image.Resampling.BILINEAR, box=(x, y, x + wide, y + tall), reducing_gap=2)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return ImageEnhance.Brightness(crop).enhance(rng.uniform(0.75, 1.2))


def _varied(rng: random.Random, image: Image.Image, side: float) -> Image.Image:
    """Return the image scaled to `side` px, with random mirroring, rotation of up to 20 degrees, brightness and
    saturation."""
    scale = side / max(image.size)
    patch = image.resize(
        (max(2, round(image.width * scale)), max(2, round(image.height * scale))),
        Image.Resampling.BILINEAR,
        reducing_gap=2,
    )
    if rng.random() < 0.5:
        patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.5:
        patch = patch.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, expand=True)
    red, green, blue, alpha = patch.split()
    lit = ImageEnhance.Brightness(Image.merge("RGB", (red, green, blue))).enhance(rng.uniform(0.8, 1.2))
    lit = ImageEnhance.Color(lit).enhance(rng.uniform(0.75, 1.2))
    return Image.merge("RGBA", (*lit.split(), alpha))


def _odd(rng: random.Random, patch: Image.Image, color: str | None) -> tuple[Image.Image, str | None]:
    """Return a patch that differs more from its file, so that a model learns the thing and not the file, and its colour
    word."""
    if rng.random() < 0.4:
        width, height = (max(2, round(side * rng.uniform(0.75, 1.0))) for side in patch.size)
        patch = patch.resize((width, height), Image.Resampling.BILINEAR)
    if rng.random() < 0.15:
        patch = patch.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
    if rng.random() < 0.3:
        *_, alpha = patch.split()
        if rng.random() < 0.3:
            shown = patch.convert("L").convert("RGB")
        else:
            hue, saturation, value = patch.convert("RGB").convert("HSV").split()
            turned = Image.fromarray(np.asarray(hue) + np.uint8(rng.randrange(256)))  # hues go round at 256
            shown = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
        patch, color = Image.merge("RGBA", (*shown.split(), alpha)), None
    return patch, color


def _add_signs(rng: random.Random, assets: Assets, canvas: _Canvas, number: int) -> None:
    plates = rng.sample(PLATES, number)
    for word, plate in zip(rng.sample(SIGN_WORDS, number), plates, strict=True):
        height = max(canvas.image.size) * rng.uniform(0.1, 0.24)
        patch, edges = draw_sign(rng, word, plate, rng.choice(assets.fonts), height)
        patch.thumbnail((canvas.image.width - 4, canvas.image.height - 4))
        box = canvas.place(rng, patch)
        if box is not None:
            canvas.things.append(Thing(SIGN, SIGN, SIGN, plate.color, box, word, edges))


def draw_sign(
    rng: random.Random, word: str, plate: Plate, font_file: object, height: float
) -> tuple[Image.Image, tuple[float, ...]]:
    """Return a plate about `height` px high with a word in lower case, upper case or capitalised, and the edges of its
    letters."""
    text = rng.choice([str.lower, str.upper, str.capitalize])(word)
    font = ImageFont.truetype(str(font_file), round(height * 0.62))
    left, top, right, bottom = font.getbbox(text)
    margin = round(height * 0.19)
    image = Image.new("RGBA", (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin))
    pen = ImageDraw.Draw(image)
    corner = rng.choice([0, 0.15, 0.3]) * height
    pen.rounded_rectangle((0, 0, image.width - 1, image.height - 1), corner, plate.fill, plate.ink, max(1, margin // 6))
    pen.text((margin - left, margin - top), text, plate.ink, font)
    turned = image.rotate(rng.uniform(-6, 6), Image.Resampling.BICUBIC, expand=True)
    before = margin - left + (turned.width - image.width) / 2
    return turned, tuple((before + font.getlength(text[:i])) / turned.width for i in range(len(text) + 1))
