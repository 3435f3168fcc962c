"""Write the bundled large image: `python -m tokenprune.evals.dev.large --sources DIR --output DIR`.

An aerial photograph with cut-outs of four known things on it, and their boxes in the formats of COCO and RefCOCO.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image

from tokenprune.evals.dev.experiments.aerial.photographs import photographs
from tokenprune.evals.dev.experiments.needles.draw import draw_needles
from tokenprune.evals.dev.experiments.needles.write import add_boxes, empty_instances, write_json
from tokenprune.evals.dev.train.sources.stamps import fetch_sources
from tokenprune.evals.dev.train.version_1.assets import load_assets
from tokenprune.evals.dev.train.version_1.scenes import SIDE, CutOut

SEED = 20261126
SIZES = 150, 300  # px of the longer side
CROP = 20, 120, 2260, 2360  # ten tiles of 224 pixels a side
QUALITY = 58


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True, help="folder for downloads")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    fetch_sources(args.sources)
    cutouts = load_assets(args.sources, held_out_cutouts=False, held_out_backgrounds=True).cutouts
    write_large(cutouts, next(photographs(args.sources / "downloads", SIDE)).image, args.output)


def write_large(cutouts: list[CutOut], photograph: Image.Image, output: Path) -> None:
    """Write images/aerial.jpg, instances.json and refs(tokenprune).json."""
    (output / "images").mkdir(parents=True, exist_ok=True)
    background = photograph.crop(CROP)
    scene = draw_needles(random.Random(SEED), cutouts, background, *SIZES)
    Image.fromarray(scene.pixels).save(output / "images" / "aerial.jpg", quality=QUALITY)
    instances, categories = empty_instances("tokenprune large image: cut-outs on an aerial photograph", SEED)
    size = {"width": background.width, "height": background.height}
    instances["images"].append({"id": 1, "file_name": "aerial.jpg", **size, "license": 1, "split": "val"})
    refs: list[dict] = []
    add_boxes(scene, 1, "aerial.jpg", "val", categories, instances["annotations"], refs)
    write_json(output / "instances.json", instances)
    write_json(output / "refs(tokenprune).json", refs)


if __name__ == "__main__":
    main()
