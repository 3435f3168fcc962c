"""How models write boxes, and how boxes are compared.

A box is (x1, y1, x2, y2): the top left and the bottom right corner.
"""

import re
from dataclasses import dataclass

import torch
from torchvision.ops import box_iou

Box = tuple[float, float, float, float]
Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class BoxFormat:
    """How a model is asked for a box, and how it writes one.

    question: what to ask, with `{}` where the expression goes.
    pattern: its four groups are the numbers of a box.
    unit: what the models call the far side of the picture; None where they count its pixels.
    middle: what is added to each number before it is divided: 0.5 where a number names a bin and means its middle.
    """

    question: str
    pattern: re.Pattern[str]
    unit: int | None
    middle: float = 0.0
    max_new_tokens: int = 32

    def fractions(self, answer: str, seen: Size) -> Box | None:
        """Return the first box in `answer` as fractions of the picture that the model saw, None where there is none.

        `seen` is that picture's size in pixels. A box whose corners are swapped is none.
        """
        match = self.pattern.search(answer)
        if match is None:
            return None
        width, height = seen if self.unit is None else (self.unit, self.unit)
        x1, y1, x2, y2 = (float(value) + self.middle for value in match.groups())
        box = x1 / width, y1 / height, x2 / width, y2 / height
        return box if box[0] <= box[2] and box[1] <= box[3] else None


_FRACTION = r"\s*(0?\.\d+|0|1(?:\.0+)?)\s*"

BOX_FORMATS = {
    "bundled": BoxFormat(
        "Where is {}?",
        re.compile(r"(?<![\d.])(?<!\d )(\d{1,2}) (\d{1,2}) (\d{1,2}) (\d{1,2})(?! ?\d|\.\d)"),
        unit=100,
        middle=0.5,
    ),
    "llava": BoxFormat(
        "Please provide the bounding box coordinate of the region this sentence describes: {}",
        re.compile(r"\[" + ",".join([_FRACTION] * 4) + r"\]"),
        unit=1,
    ),
}


def iou(one: Box, other: Box) -> float:
    """Return intersection over union."""
    return box_iou(torch.tensor([one]), torch.tensor([other])).item()


def within(window: Box, fractions: Box) -> Box:
    """Return the box whose corners are at these fractions of the sides of `window`."""
    left, top, right, bottom = window
    x1, y1, x2, y2 = fractions
    width, height = right - left, bottom - top
    return left + x1 * width, top + y1 * height, left + x2 * width, top + y2 * height
