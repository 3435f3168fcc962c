"""The things that the model knows: their nouns, groups, plurals, image files, and which files training never sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_NO_PLURAL = (  # plural already, or irregular
    "bacon beans beer binoculars bison blowfish blueberries bread broccoli buffalo butter cactus candy cheese "
    "cherimoya cherries chocolate chopsticks coral corn deer die dodo drum drums earth fire fireman fish fries "
    "garlic ginger glasses gloves gnu goggles goose grapes hand headphones honey jeans jellyfish lavender lettuce "
    "lionfish mango maracas milk moon moose mosquito mouse octopus ox pancakes peanuts peas pliers popcorn potato "
    "rice salad santa saturn scales scissors sheep shorts shrimp snowman soap socks spaghetti squid sunglasses "
    "sushi tape thread thyme tomato tooth tornado volcano wine woodlouse yarn"
)


# Designers of emoji -> folder and suffix of each of their styles. The first three have every emoji.
FAMILIES = {
    "fluent": {"fluent": "webp", "flat": "png"},
    "noto": {"noto": "png", "blob": "png"},
    "twemoji": {"twemoji": "png"},
    "openmoji": {"openmoji": "png"},
    "emojione": {"emojione": "png", "emojione1": "png"},
}
_MAY_BE_HELD_OUT = ("fluent", "noto", "twemoji")


@dataclass(frozen=True)
class Noun:
    """A thing's name, its stamps and its emoji's code points in hexadecimal."""

    name: str
    group: str
    stamps: tuple[str, ...]
    codes: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Paths relative to the sources' folder. Some may not exist: not every designer drew every emoji."""
        return (*(f"stamps/{file}" for file in self.stamps), *self._drawn_by(*FAMILIES))

    @property
    def held_out(self) -> frozenset[str]:
        """The files that training never sees: one designer's emoji, and the last of several stamps, as in version 1."""
        stamps = [f"stamps/{file}" for file in self.stamps[-1:] if len(self.stamps) > 1]
        designer = _MAY_BE_HELD_OUT[hashlib.sha256(self.name.encode()).digest()[0] % len(_MAY_BE_HELD_OUT)]
        return frozenset([*stamps, *self._drawn_by(designer)])

    def _drawn_by(self, *designers: str) -> list[str]:
        styles = [style for designer in designers for style in FAMILIES[designer].items()]
        return [f"{folder}/{code}.{suffix}" for code in self.codes for folder, suffix in styles]

    @property
    def plural(self) -> str | None:
        """The noun with "s" or "es"; None if its plural is formed differently."""
        if self.name in _NO_PLURAL.split() or self.name.endswith(("y", "f", "fe")):
            return None
        return self.name + ("es" if self.name.endswith(("s", "x", "ch", "sh", "z")) else "s")


@cache
def nouns() -> tuple[Noun, ...]:
    """Return all nouns, sorted by name."""
    nouns = (Noun(name, group, tuple(stamps), tuple(codes)) for group, name, stamps, codes in _rows())
    return tuple(sorted(nouns, key=lambda noun: noun.name))


def code_points() -> set[str]:
    """Return the code points of the emoji in use, in hexadecimal."""
    return {code for _, _, _, codes in _rows() for code in codes}


def _rows() -> Iterator[tuple[str, str, list[str], list[str]]]:
    groups = json.loads((Path(__file__).parent / "nouns.json").read_text())
    for group, of_group in groups.items():
        for name, sources in of_group.items():
            yield group, name, sources.get("stamps", []), sources.get("emoji", [])
