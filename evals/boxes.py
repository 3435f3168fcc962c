"""Read a box from a generated answer, and compare two boxes.

A box is (x1, y1, x2, y2): the top left and the bottom right corner.
"""

import re

import torch
from torchvision.ops import box_iou

Box = tuple[float, float, float, float]

HUNDREDTHS = re.compile(r"(?<![\d.])(?<!\d )(\d{1,2}) (\d{1,2}) (\d{1,2}) (\d{1,2})(?! ?\d|\.\d)")
_FRACTION = r"\s*(0?\.\d+|0|1(?:\.0+)?)\s*"
FRACTIONS = re.compile(r"\[" + ",".join([_FRACTION] * 4) + r"\]")


def parse_box(answer: str) -> Box | None:
    """Return the first box in `answer` as fractions of the picture's width and height, None where there is none.

    Two formats are read: the bundled model's `12 34 56 78`, hundredths of the side of which `v` means its middle
    (v + 0.5) / 100, and LLaVA's `[0.12, 0.34, 0.56, 0.78]`. A box whose corners are swapped is none.
    """
    if match := HUNDREDTHS.search(answer):
        x1, y1, x2, y2 = ((int(value) + 0.5) / 100 for value in match.groups())
    elif match := FRACTIONS.search(answer):
        x1, y1, x2, y2 = (float(value) for value in match.groups())
    else:
        return None
    return (x1, y1, x2, y2) if x1 <= x2 and y1 <= y2 else None


def iou(one: Box, other: Box) -> float:
    """Return intersection over union."""
    return box_iou(torch.tensor([one]), torch.tensor([other])).item()


def in_pixels(box: Box, size: tuple[int, int]) -> Box:
    """Scale fractions of the side to pixels of a picture of `size` (width, height)."""
    width, height = size
    x1, y1, x2, y2 = box
    return x1 * width, y1 * height, x2 * width, y2 * height
