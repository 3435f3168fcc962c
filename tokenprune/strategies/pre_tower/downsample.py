"""A smaller image: the users' own way to fewer visual tokens, against which others are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Record, ResizeStrategy


@register_strategy("downsample")
@dataclass(frozen=True)
class Downsample(ResizeStrategy):
    """Gives the vision tower a smaller image, so that tower and language model get cheaper. No visual token of the
    image as it was passed is left.

    The smaller image has the largest number of visual tokens within the budget at which it keeps its aspect ratio:
    `handle.report` says how many, and at which size. Every frame of a video is shrunk alike.

    With original position IDs, its tokens stand where they show the image as it was passed: their grid is stretched
    over the large one. With compact ones, the model numbers the smaller image as if it had been passed that.
    """

    record: ClassVar[Record] = Record(
        keeps="a smaller image, of which every visual token enters",
        waits=(3, 1),
        unmeasured="is measured as the baseline `downsample`",
    )
