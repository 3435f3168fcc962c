"""Boxes: how well they overlap, and boxes as parts of others.

A box is (x1, y1, x2, y2): its top left and its bottom right corner.
"""

import torch
from torchvision.ops import box_iou

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Size = tuple[int, int]  # width, height

HIT = 0.5  # the smallest IoU at which a box counts as found


def iou(one: Box, other: Box) -> float:
    """Return intersection over union."""
    return box_iou(torch.tensor([one]), torch.tensor([other])).item()


def centre(box: Box) -> Point:
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2


def contains(box: Box, point: Point) -> bool:
    """Return whether a point is inside the box or on its edge."""
    (x1, y1, x2, y2), (x, y) = box, point
    return x1 <= x <= x2 and y1 <= y <= y2


def within(window: Box, fractions: Box) -> Box:
    """Return the box with its corners at these fractions of the sides of `window`."""
    left, top, right, bottom = window
    x1, y1, x2, y2 = fractions
    width, height = right - left, bottom - top
    return left + x1 * width, top + y1 * height, left + x2 * width, top + y2 * height


def parts_of(window: Box, box: Box) -> Box:
    """Return the box as fractions of the sides of `window`, clipped to 0 to 1: the inverse of `within`."""
    left, top, right, bottom = window
    sides = (
        (box[0] - left, right - left),
        (box[1] - top, bottom - top),
        (box[2] - left, right - left),
        (box[3] - top, bottom - top),
    )
    x1, y1, x2, y2 = (min(1.0, max(0.0, part / side)) for part, side in sides)
    return x1, y1, x2, y2
