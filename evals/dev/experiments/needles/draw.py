"""Draw needles in a large image, as a set in the formats of COCO, RefCOCO and VQAv2:
`python -m tokenprune.evals.dev.experiments.needles.draw --sources DIR --output DIR`.

Every image is the Blue Marble, the earth at 5400 x 2700 pixels, with cut-outs of four known things of about the same
size pasted on it. Splits are named after the size, so that results are reported by size. `--earth etopo1 --seed 1`
draws another set, on which settings can be chosen.
"""

from __future__ import annotations

import argparse
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from tokenprune.evals.dev.experiments.needles.write import add_boxes, add_question, empty_instances, write_set
from tokenprune.evals.dev.train.sources.stamps import EARTHS, fetch_earth, fetch_sources
from tokenprune.evals.dev.train.version_1.assets import load_assets, nouns
from tokenprune.evals.dev.train.version_1.questions import Question
from tokenprune.evals.dev.train.version_1.scenes import CutOut, Scene, Thing

SEED = 20261125
IMAGES = 32
PER_IMAGE = 4
SIZES = tuple(pairwise((60, 107, 190, 337, 600)))  # px of the longer side
GAP = 30  # px between two needles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True, help="folder for downloads")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--earth", choices=EARTHS, default=EARTHS[0])
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    fetch_sources(args.sources)
    cutouts = load_assets(args.sources, held_out_cutouts=False, held_out_backgrounds=True).cutouts
    earth = Image.open(fetch_earth(args.sources, args.earth)).convert("RGB")
    write_needles(cutouts, earth, args.output, args.images, args.seed)


def write_needles(
    cutouts: list[CutOut], background: Image.Image, output: Path, n_images: int, seed: int = SEED
) -> None:
    """Write images/*.jpg, instances.json, refs(tokenprune).json, questions.json and annotations.json. The questions ask
    where each needle is, whether half of them are there, and whether as many absent things are."""
    (output / "images").mkdir(parents=True, exist_ok=True)
    instances, categories = empty_instances("tokenprune needles: cut-outs on a picture of the earth", seed)
    refs: list[dict] = []
    questions: list[dict] = []
    annotations: list[dict] = []
    rng = random.Random(seed)
    for number in tqdm(range(n_images)):
        low, high = SIZES[number % len(SIZES)]
        scene = draw_needles(rng, cutouts, background, low, high)
        image_id, split = number + 1, f"{low}-{high} px"
        name = f"needles_{image_id:06d}.jpg"
        Image.fromarray(scene.pixels).save(output / "images" / name, quality=95)
        image = {"id": image_id, "file_name": name, "width": background.width, "height": background.height}
        instances["images"].append({**image, "license": 1, "split": split})
        add_boxes(scene, image_id, name, split, categories, instances["annotations"], refs)
        there = {thing.noun for thing in scene.things}
        for index, thing in enumerate(scene.things[: PER_IMAGE // 2]):
            absent = rng.choice([noun for noun in nouns() if noun not in there])
            for noun, answer, about in ((thing.noun, "yes", index), (absent, "no", None)):
                asked = Question("presence", f"is there a {noun}?", answer, about)
                add_question(asked, image_id, questions, annotations)
    write_set(output, instances, refs, questions, annotations)


def draw_needles(rng: random.Random, cutouts: list[CutOut], background: Image.Image, low: int, high: int) -> Scene:
    """Draw needles of different nouns whose longer side is `low` to `high` pixels, anywhere on the background."""
    canvas = background.copy()
    by_noun: dict[str, list[CutOut]] = {}
    for cutout in cutouts:
        by_noun.setdefault(cutout.noun, []).append(cutout)
    things: list[Thing] = []
    for noun in rng.sample(sorted(by_noun), PER_IMAGE):
        cutout = rng.choice(by_noun[noun])
        scale = low * (high / low) ** rng.random() / max(cutout.picture.size)
        size = (max(8, round(cutout.picture.width * scale)), max(8, round(cutout.picture.height * scale)))
        patch = cutout.picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
        for _ in range(1000):
            x, y = rng.randrange(canvas.width - patch.width), rng.randrange(canvas.height - patch.height)
            box = (x, y, x + patch.width, y + patch.height)
            if not any(_touch(box, thing.box) for thing in things):
                break
        else:
            raise ValueError(f"{background.size} px is too small for {PER_IMAGE} needles of {low} to {high} px")
        canvas.paste(patch, (x, y), patch)
        things.append(Thing(noun, cutout.file, cutout.color, box))
    return Scene(np.asarray(canvas), tuple(things), np.zeros((0, 0), np.int8))


def _touch(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a[0] < b[2] + GAP and b[0] < a[2] + GAP and a[1] < b[3] + GAP and b[1] < a[3] + GAP


if __name__ == "__main__":
    main()
