"""The words on signs, and the colours of their plates."""

from __future__ import annotations

from typing import NamedTuple


class Plate(NamedTuple):
    color: str
    fill: tuple[int, int, int]
    ink: tuple[int, int, int]


PLATES = (
    Plate("red", (200, 25, 25), (255, 255, 255)),
    Plate("blue", (30, 70, 190), (255, 255, 255)),
    Plate("green", (20, 120, 50), (255, 255, 255)),
    Plate("yellow", (245, 215, 50), (20, 20, 20)),
    Plate("white", (250, 250, 250), (25, 25, 25)),
    Plate("black", (20, 20, 20), (245, 245, 245)),
    Plate("orange", (245, 140, 20), (20, 20, 20)),
)
# None of them is a noun, a colour or an answer of another kind.
_SIGN_WORDS = (
    "stop exit open closed sale cafe push pull menu park wait slow help free cold new fast news hello welcome "
    "danger enter police shop love peace happy day night music art club gym spa zone lane road west east north "
    "south metro gate office water juice soup cool best king queen city home ticket beach garden winter summer "
    "super market game team"
)
SIGN_WORDS = tuple(_SIGN_WORDS.split())
