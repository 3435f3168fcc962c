"""The bundled sets: how many images of which scenes, and what is asked about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Shape = tuple[int, int]

SQUARE, WIDE, TALL = (24, 24), (16, 24), (24, 16)
KINDS = ("presence", "color", "extreme", "size", "name", "count", "relation", "text")
REC = ("rec", "rec small")


@dataclass(frozen=True)
class SetPlan:
    """A set with numbers of `images` by split, stored at `shape` (rows, columns), the largest grid they are used at.

    For a smaller grid of the same shape, the processor shrinks the same images, so that resolutions are compared on the
    same questions.

    scene: a kind in `draw.KINDS`, or None to draw kinds by weight. vqa: kinds of questions; each image gets up to
    `asked` of them, balanced over the set. rec: kinds of expressions; each image gets all that name exactly one thing.
    """

    name: str
    images: Mapping[str, int]
    shape: Shape = SQUARE
    scene: str | None = None
    vqa: tuple[str, ...] = ()
    asked: int = 0
    rec: tuple[str, ...] = ()


SETS = (
    SetPlan("scenes", {"val": 240, "test": 140}, vqa=KINDS, asked=4, rec=REC),
    SetPlan("counting", {"val": 150, "test": 75}, scene="count", vqa=("count",), asked=2),
    SetPlan("relations", {"val": 100, "test": 50}, scene="mixed", vqa=("relation",), asked=3),
    SetPlan("text", {"val": 180, "test": 90}, scene="text", vqa=("text",), asked=3),
    SetPlan("small", {"val": 90, "test": 45}, scene="small", rec=("rec small",)),
    SetPlan("wide", {"val": 80, "test": 40}, WIDE, vqa=KINDS, asked=4, rec=REC),
    SetPlan("tall", {"val": 80, "test": 40}, TALL, vqa=KINDS, asked=4, rec=REC),
)
#: Split -> whether its things and fonts are held out of training. Its backgrounds always are.
HELD_OUT_THINGS = {"val": False, "test": True}
