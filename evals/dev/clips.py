"""Make the bundled clips: objects of the bundled scenes that move across, or appear on, part of a photograph.

    python -m tokenprune.evals.dev.clips --output evals/bundled/clips

In each clip one object crosses the background in four seconds; in every second clip another one appears for one second.
Questions and answers are in ActivityNet-QA's format: they ask whether the appearing object is there ("when"), whether
the moving one is ("where"), whether an absent one is, and "what is this?" if there is only one object. The same command
and versions reproduce the files.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from tokenprune.evals.models.bundled import SCENES

SIDE, N_FRAMES, FPS = 224, 8, 2
#: In pixels of a scene: its side, the least side of a free square, and the least shorter side of an object.
SCENE_SIDE, FREE, SMALLEST = 336, 120, 60
#: In pixels of a clip: the longer side of the moving and of the appearing object.
OBJECTS = 84, 112
#: The noun for signs. They belong to the background: no question of a clip is about them.
SIGN = "sign"
YES_OR_NO, OBJECT = 3, 5  # ActivityNet-QA's types of questions
#: What the questions ask in turn, for clips with one object and with two. "where": about the object that is always
#: there and moves. "when": about the one that is there for one second. "absent": about one that is not there.
KINDS = ("where", "absent", "what"), ("when", "absent", "where")

Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Thing:
    """An object in a scene."""

    noun: str
    file: str
    box: Box


def scenes(split: str = "val") -> dict[str, list[Thing]]:
    """Return the objects of every scene of a split, by the scene's file name."""
    instances = json.loads((SCENES / "instances.json").read_text(encoding="utf-8"))
    nouns = {category["id"]: category["name"] for category in instances["categories"]}
    files = {image["id"]: image["file_name"] for image in instances["images"] if image["split"] == split}
    things: dict[str, list[Thing]] = {file: [] for file in files.values()}
    for annotation in instances["annotations"]:
        if annotation["image_id"] in files:
            left, top, width, height = (round(edge) for edge in annotation["bbox"])
            file = files[annotation["image_id"]]
            things[file].append(Thing(nouns[annotation["category_id"]], file, (left, top, left + width, top + height)))
    return things


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def free_piece(things: Sequence[Thing], step: int = 8) -> Box | None:
    """Return the largest square of a scene that contains no object, or None if it would be too small."""
    for side in range(SCENE_SIDE - step, FREE, -step):
        for left in range(0, SCENE_SIDE - side + 1, step):
            for top in range(0, SCENE_SIDE - side + 1, step):
                square = (left, top, left + side, top + side)
                if not any(overlap(square, thing.box) for thing in things):
                    return square
    return None


def alone(thing: Thing, things: Sequence[Thing]) -> bool:
    """Return whether an object is large enough to be seen, and overlaps no other."""
    left, top, right, bottom = thing.box
    large = min(right - left, bottom - top) >= SMALLEST
    return large and not any(overlap(thing.box, other.box) for other in things if other is not thing)


def cut_out(thing: Thing, longer: int) -> Image.Image:
    """Return the object as RGBA, with soft edges."""
    image = Image.open(SCENES / "images" / thing.file).convert("RGB").crop(thing.box)
    scale = longer / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((2, 2, image.width - 3, image.height - 3), longer // 4, fill=255)
    image.putalpha(ImageChops.darker(mask, mask.filter(ImageFilter.GaussianBlur(2))))
    return image


def background(rng: Random, pieces: Sequence[tuple[str, Box]]) -> Image.Image:
    file, square = rng.choice(pieces)
    return (
        Image.open(SCENES / "images" / file).convert("RGB").crop(square).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    )


def frames_of(
    rng: Random, ground: Image.Image, moving: Image.Image, appearing: Image.Image | None
) -> list[Image.Image]:
    """Return frames in which one object crosses the upper or lower half, and another is shown for one second in the
    other half."""
    above = rng.random() < 0.5
    start, end = rng.sample([4, SIDE - moving.width - 4], 2)
    place = rng.randint(0, SIDE - appearing.width) if appearing is not None else 0
    begin = rng.randrange(1, N_FRAMES - 2)
    frames = []
    for number in range(N_FRAMES):
        frame = ground.copy()
        if appearing is not None and begin <= number < begin + FPS:
            frame.paste(appearing, (place, _row(appearing, not above)), appearing)
        left = round(start + (end - start) * number / (N_FRAMES - 1))
        frame.paste(moving, (left, _row(moving, above)), moving)
        frames.append(frame)
    return frames


def _row(pasted: Image.Image, above: bool) -> int:
    return (SIDE // 2 - pasted.height) // 2 + (0 if above else SIDE // 2)


def write_clip(path: Path, frames: Sequence[Image.Image]) -> None:
    import av  # pyright: ignore[reportMissingImports]

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"crf": "27", "threads": "1"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def questions_of(
    rng: Random, name: str, nouns: Sequence[str], moving: str, appearing: str | None
) -> list[dict[str, Any]]:
    """Return (question, answer, type) of a clip: objects that appear or move are there, another one is not."""
    absent = rng.choice([noun for noun in nouns if noun not in (moving, appearing)])
    asked = [(f"is there a {appearing or moving}?", "yes", YES_OR_NO), (f"is there a {absent}?", "no", YES_OR_NO)]
    if appearing is None:
        asked.append(("what is this?", moving, OBJECT))
    else:
        asked.append((f"is there a {moving}?", "yes", YES_OR_NO))
    return [
        {"question": text, "answer": answer, "type": kind, "video_name": name, "question_id": f"{name}_{number}"}
        for number, (text, answer, kind) in enumerate(asked)
    ]


def kind_of(number: int) -> str:
    """Return what a question asks about, by its number in the set."""
    own = KINDS[number // len(KINDS[0]) % len(KINDS)]
    return own[number % len(own)]


def make(output: Path, n_clips: int, seed: int) -> None:
    rng, things_of = Random(seed), scenes()
    pieces = [(file, square) for file, things in things_of.items() if (square := free_piece(things)) is not None]
    things = [thing for own in things_of.values() for thing in own if thing.noun != SIGN and alone(thing, own)]
    nouns = sorted({thing.noun for thing in things})
    (output / "videos").mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    for number in range(n_clips):
        moving = rng.choice(things)
        other = rng.choice([thing for thing in things if thing.noun != moving.noun]) if number % 2 else None
        images = [cut_out(thing, rng.randint(*OBJECTS)) for thing in (moving, other) if thing is not None]
        name = f"clip_{number:03}"
        frames = frames_of(rng, background(rng, pieces), images[0], images[1] if other is not None else None)
        write_clip(output / "videos" / f"{name}.mp4", frames)
        records += questions_of(rng, name, nouns, moving.noun, None if other is None else other.noun)
    answers = [{key: record[key] for key in ("answer", "type", "question_id")} for record in records]
    asked = [{key: record[key] for key in ("question", "video_name", "question_id")} for record in records]
    for name, content in (("val_q.json", asked), ("val_a.json", answers)):
        lines = ",\n".join(json.dumps(row) for row in content)
        (output / name).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--clips", type=int, default=140, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    make(options.output, options.clips, options.seed)


if __name__ == "__main__":
    main()
