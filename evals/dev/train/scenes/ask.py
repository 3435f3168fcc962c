"""Questions with known answers about scenes. Where an answer could be guessed, both are equally frequent."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from tokenprune.evals.dev.train.scenes.draw import SIGN, Scene, Thing
from tokenprune.evals.dev.train.vocabulary.nouns import Noun

APART = 0.08  # of a side; things nearer than this are neither left nor right of each other
_MOST_COUNTED = 6
_SIDES = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}  # axis, and sign of the smallest
_RELATIONS = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}


@dataclass(frozen=True)
class Question:
    """`about`: the things that the answer is read from, all of one noun. `other`: what they are compared with."""

    kind: str
    text: str
    answer: str
    about: tuple[int, ...] = ()
    other: tuple[int, ...] = ()


def box_words(box: tuple[float, float, float, float]) -> str:
    """Return four numbers 0-99: for each edge, the hundredth of the image's side that it lies in."""
    return " ".join(f"{min(99, max(0, int(100 * edge))):02d}" for edge in box)


def rec_questions(scene: Scene) -> list[Question]:
    """Return questions about the box of every thing that an expression names uniquely. Small things are a kind of their
    own."""
    questions = []
    for index, thing in enumerate(scene.things):
        same = [other for i, other in enumerate(scene.things) if other.noun == thing.noun and i != index]
        words = [""] if not same else _told_apart_by(thing, same[0]) if len(same) == 1 else []
        kind = "rec small" if thing.area < 0.02 else "rec"
        for word in words:
            expression = f"{word} {thing.noun}".strip()
            questions.append(Question(kind, f"where is the {expression}?", box_words(thing.box), (index,)))
    return questions


def _told_apart_by(thing: Thing, other: Thing) -> list[str]:
    words = []
    if thing.color and other.color and thing.color != other.color:
        words.append(thing.color)
    if thing.area > 1.5 * other.area:
        words.append("larger")
    if other.area > 1.5 * thing.area:
        words.append("smaller")
    for word, (axis, sign) in _SIDES.items():
        if sign * (other.center[axis] - thing.center[axis]) > 1.5 * APART:
            words.append(word)
    return words


def vqa_questions(rng: random.Random, scene: Scene, nouns: tuple[Noun, ...], *, relations: int = 3) -> list[Question]:
    """Return a few questions of every kind that the scene allows, at most `relations` of them on relations of two
    things."""
    things = [(i, t) for i, t in enumerate(scene.things) if t.noun != SIGN]
    asked = _text([(i, t) for i, t in enumerate(scene.things) if t.noun == SIGN])
    if things:
        single = Counter(t.noun for _, t in things)
        unique = [(i, t) for i, t in things if single[t.noun] == 1]
        asked += _presence(rng, things, nouns) + _counts(rng, scene, things, nouns)
        colored = [(i, t) for i, t in unique if t.color]
        for index, thing in rng.sample(colored, min(2, len(colored))):
            asked.append(Question("color", f"what color is the {thing.noun}?", str(thing.color), (index,)))
        if len(unique) >= 2:
            asked += _relations(rng, scene.things, unique, relations) + _sizes(rng, unique)
        if len(things) == len(scene.things):
            asked += _extremes(things)
        if len(scene.things) == 1:
            asked.append(Question("name", "what is this?", things[0][1].noun, (things[0][0],)))
    return asked


def _text(signs: list[tuple[int, Thing]]) -> list[Question]:
    if len(signs) == 1:
        index, sign = signs[0]
        return [Question("text", "what does the sign say?", str(sign.word), (index,))]
    asked = []
    for (index, sign), (_, other) in permutations(signs, 2):
        for word in _told_apart_by(sign, other):
            asked.append(Question("text", f"what does the {word} sign say?", str(sign.word), (index,)))
    return asked


def _presence(rng: random.Random, things: list[tuple[int, Thing]], nouns: tuple[Noun, ...]) -> list[Question]:
    """Ask about things that are there, and about as many that are not. Half of the latter are of a group that is there,
    so that the group does not give away the answer."""
    there = {t.noun: (i, t) for i, t in things}
    absent = [noun for noun in nouns if noun.name not in there]
    asked = []
    for name in rng.sample(sorted(there), min(2, len(there))):
        index, thing = there[name]
        alike = [noun for noun in absent if noun.group == thing.group]
        other = rng.choice(alike if alike and rng.random() < 0.5 else absent)
        asked.append(Question("presence", f"is there a {name}?", "yes", (index,)))
        asked.append(Question("presence", f"is there a {other.name}?", "no"))
    return asked


def _counts(
    rng: random.Random, scene: Scene, things: list[tuple[int, Thing]], nouns: tuple[Noun, ...]
) -> list[Question]:
    """Ask how many things there are in all, and how many of one noun: mostly the most frequent one, rarely a single
    one."""
    asked = []
    if len(scene.things) == len(things) <= _MOST_COUNTED:
        asked.append(Question("count", "how many objects are there?", str(len(things)), tuple(i for i, _ in things)))
    plurals = {noun.name: noun.plural for noun in nouns}
    counted = [(n, name) for name, n in Counter(t.noun for _, t in things).items() if plurals.get(name)]
    if counted:
        number, name = max(counted) if rng.random() < 0.9 else rng.choice(counted)
        if number <= _MOST_COUNTED and (number > 1 or rng.random() < 0.3):
            same = tuple(i for i, thing in things if thing.noun == name)
            asked.append(Question("count", f"how many {plurals[name]} are there?", str(number), same))
    return asked


def _relations(
    rng: random.Random, things: Sequence[Thing], unique: list[tuple[int, Thing]], pairs: int
) -> list[Question]:
    """Ask whether two things are in a relation, with yes and no equally likely, and once which thing is.

    The latter is asked only if no other of the scene's `things` would be right: no sign, and none of several of a noun.
    """
    asked = []
    for _ in range(pairs):
        (i, a), (j, b) = rng.sample(unique, 2)
        words, (axis, sign) = rng.choice(list(_RELATIONS.items()))
        gap = sign * (b.center[axis] - a.center[axis])
        if abs(gap) > APART:
            text = f"is the {a.noun} {words} the {b.noun}?"
            asked.append(Question("relation", text, "yes" if gap > 0 else "no", (i,), (j,)))
    words, (axis, sign) = rng.choice(list(_RELATIONS.items()))
    j, b = rng.choice(unique)
    gaps = [(sign * (b.center[axis] - a.center[axis]), i, a) for i, a in enumerate(things) if i != j]
    there = [(i, a) for gap, i, a in gaps if gap > APART]
    if len(there) == 1 and there[0] in unique and all(abs(gap) > APART for gap, _, _ in gaps):
        i, a = there[0]
        asked.append(Question("relation", f"what is {words} the {b.noun}?", a.noun, (i,), (j,)))
    return list(dict.fromkeys(asked))


def _sizes(rng: random.Random, unique: list[tuple[int, Thing]]) -> list[Question]:
    (i, a), (j, b) = rng.sample(unique, 2)
    if max(a.area, b.area) < 1.5 * min(a.area, b.area):
        return []
    (first, larger), (second, _) = sorted([(i, a), (j, b)], key=lambda pair: -pair[1].area)
    text = f"which is larger, the {a.noun} or the {b.noun}?"
    return [Question("size", text, larger.noun, (first,), (second,))]


def _extremes(things: list[tuple[int, Thing]]) -> list[Question]:
    asked = []
    if len(things) >= 2:
        for word, (axis, sign) in _SIDES.items():
            (i, a), (_, b), *_ = sorted(things, key=lambda pair: sign * pair[1].center[axis])
            if abs(a.center[axis] - b.center[axis]) > APART:
                place = f"on the {word}" if axis == 0 else f"at the {word}"
                asked.append(Question("extreme", f"what is {place}?", a.noun, (i,)))
    return asked
