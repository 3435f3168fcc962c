"""The things that version 2 knows: their nouns, groups, plurals, image files, and which files training never sees."""

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


@dataclass(frozen=True)
class Noun:
    """A thing's name; `files` are relative to the sources' folder, stamps first, then emoji of both styles."""

    name: str
    group: str
    files: tuple[str, ...]

    @property
    def held_out(self) -> str | None:
        """The one file that training never sees: the last of several stamps, as in version 1, or else a render.

        None where only a stamp, or only one emoji in its two styles, shows the thing.
        """
        stamps = [file for file in self.files if file.startswith("stamps/")]
        if len(stamps) > 1:
            return stamps[-1]
        if len(self.files) < 3:
            return None
        renders = [file for file in self.files if file not in stamps]
        return renders[hashlib.sha256(self.name.encode()).digest()[0] % len(renders)]

    @property
    def plural(self) -> str | None:
        """The noun and "s" or "es"; None where the plural is not so made."""
        if self.name in _NO_PLURAL.split() or self.name.endswith(("y", "f", "fe")):
            return None
        return self.name + ("es" if self.name.endswith(("s", "x", "ch", "sh", "z")) else "s")


@cache
def nouns() -> tuple[Noun, ...]:
    """Every noun, sorted by name."""
    return tuple(sorted(_read(), key=lambda noun: noun.name))


def code_points() -> set[str]:
    """The emoji in use, in hexadecimal."""
    return {code for _, _, _, codes in _rows() for code in codes}


def _read() -> Iterator[Noun]:
    for group, name, stamps, codes in _rows():
        emoji = [
            f"{style}/{code}.{suffix}" for code in codes for style, suffix in (("fluent", "webp"), ("noto", "png"))
        ]
        yield Noun(name, group, tuple([f"stamps/{file}" for file in stamps] + emoji))


def _rows() -> Iterator[tuple[str, str, list[str], list[str]]]:
    groups = json.loads((Path(__file__).parent / "nouns.json").read_text())
    for group, of_group in groups.items():
        for name, sources in of_group.items():
            yield group, name, sources.get("stamps", []), sources.get("emoji", [])
