"""Questions with known answers about a scene, worded as in RefCOCO and VQAv2."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from tokenprune.evals.dev.train.version_1.scenes import SIDE, Scene, Thing


@dataclass(frozen=True)
class Question:
    """`about` is the thing that the answer is read from (None if it is not a single one)."""

    kind: str
    text: str
    answer: str
    about: int | None


def box_words(box: tuple[int, int, int, int], side: int = SIDE) -> str:
    """Return a box in px as the model writes it, four numbers 0-99: the hundredth of the side that each edge lies
    in."""
    return " ".join(f"{min(99, max(0, int(100 * edge / side))):02d}" for edge in box)


def referring_expressions(scene: Scene) -> list[tuple[str, int]]:
    """Return every (expression, thing) in which the expression names exactly one thing."""
    found: list[tuple[str, int]] = []
    nouns = Counter(thing.noun for thing in scene.things)
    for index, thing in enumerate(scene.things):
        if nouns[thing.noun] == 1:
            found.append((f"the {thing.noun}", index))
            continue
        (other,) = (t for i, t in enumerate(scene.things) if t.noun == thing.noun and i != index)
        found += [(f"the {word} {thing.noun}", index) for word in _told_apart_by(thing, other)]
    return found


def _told_apart_by(thing: Thing, other: Thing) -> list[str]:
    words = []
    if thing.color and other.color and thing.color != other.color:
        words.append(thing.color)
    if thing.area > 1.5 * other.area:
        words.append("larger")
    if other.area > 1.5 * thing.area:
        words.append("smaller")
    (x, y), (u, v) = thing.center, other.center
    if abs(x - u) > 0.12 * SIDE:
        words.append("left" if x < u else "right")
    if abs(y - v) > 0.12 * SIDE:
        words.append("top" if y < v else "bottom")
    return words


def rec_questions(scene: Scene) -> list[Question]:
    return [
        Question("rec", f"where is {expression}?", box_words(scene.things[index].box), index)
        for expression, index in referring_expressions(scene)
    ]


def vqa_questions(rng: random.Random, scene: Scene, nouns: list[str]) -> list[Question]:
    """Return one question of every kind that the scene allows. Yes and no are equally frequent."""
    things = list(enumerate(scene.things))
    single = Counter(t.noun for t in scene.things)
    unique = [(i, t) for i, t in things if single[t.noun] == 1]
    asked: list[Question] = []
    index, thing = rng.choice(things)
    absent = rng.choice([n for n in nouns if n not in single])
    asked.append(Question("presence", f"is there a {thing.noun}?", "yes", index))
    asked.append(Question("presence", f"is there a {absent}?", "no", None))
    asked.append(Question("count", "how many objects are there?", str(len(things)), None))
    colored = [(i, t) for i, t in unique if t.color]
    if colored:
        index, thing = rng.choice(colored)
        asked.append(Question("color", f"what color is the {thing.noun}?", thing.color or "", index))
    if len(things) == 1:
        asked.append(Question("name", "what is this?", scene.things[0].noun, 0))
        return asked
    for word, axis, sign in (
        ("on the left", 0, 1),
        ("on the right", 0, -1),
        ("at the top", 1, 1),
        ("at the bottom", 1, -1),
    ):
        ranked = sorted(things, key=lambda pair: sign * pair[1].center[axis])
        if abs(ranked[0][1].center[axis] - ranked[1][1].center[axis]) > 0.08 * SIDE:
            asked.append(Question("extreme", f"what is {word}?", ranked[0][1].noun, ranked[0][0]))
    if len(unique) >= 2:
        (i, a), (_, b) = rng.sample(unique, 2)
        axis, words = rng.choice([(0, ("left of", "right of")), (1, ("above", "below"))])
        gap = a.center[axis] - b.center[axis]
        if abs(gap) > 0.08 * SIDE:
            side = rng.randrange(2)
            truth = (gap < 0) == (side == 0)
            text = f"is the {a.noun} {words[side]} the {b.noun}?"
            asked.append(Question("relation", text, "yes" if truth else "no", i))
        (i, a), (j, b) = rng.sample(unique, 2)
        if max(a.area, b.area) > 1.5 * min(a.area, b.area):
            larger = (i, a) if a.area > b.area else (j, b)
            asked.append(Question("size", f"which is larger, the {a.noun} or the {b.noun}?", larger[1].noun, larger[0]))
    return asked
