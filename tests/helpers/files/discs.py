"""Discs to draw scenes from, so that tests need no sources."""

from pathlib import Path

import numpy as np
from PIL import Image

from tokenprune.evals.dev.train.scenes.assets import Assets, CutOut, font_path
from tokenprune.evals.dev.train.vocabulary.nouns import nouns

COLORS = [(220, 20, 20), (30, 60, 220), (240, 220, 20), (10, 10, 10), (20, 160, 40), (255, 255, 255), (250, 140, 10)]
NAMES = ["apple", "ball", "lemon", "wheel", "frog", "ghost", "carrot"]


def disc(name: str, color: tuple[int, int, int]) -> CutOut:
    pixels = np.zeros((78, 78, 4), np.uint8)
    rows, columns = np.mgrid[:78, :78]
    pixels[(rows - 38.5) ** 2 + (columns - 38.5) ** 2 < 39**2] = (*color, 255)
    return CutOut(next(noun for noun in nouns() if noun.name == name), f"{name}.png", Image.fromarray(pixels))


def discs_on_gray() -> Assets:
    discs = tuple(disc(name, color) for name, color in zip(NAMES, COLORS, strict=True))
    return Assets(discs, (Image.new("RGB", (500, 400), (128, 128, 128)),), (font_path(Path(), "DejaVuSans"),))
