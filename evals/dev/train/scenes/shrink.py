"""Copy only the sources that the training reads, reduced in size, to be moved to another machine:
`python -m tokenprune.evals.dev.train.scenes.shrink --sources DIR --output DIR`; then train with the copy.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from PIL import Image

from tokenprune.evals.dev.train.scenes.assets import CUTOUT_SIDE, HELD_OUT_FONTS, TRAINING_FONTS, background_files
from tokenprune.evals.dev.train.start.tower import TOWER_FILE, tower_and_positions
from tokenprune.evals.dev.train.vocabulary.nouns import nouns

BACKGROUND_SIDE = 640  # px


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True, help="folder that the training has filled")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    shrink(args.sources, args.output)
    tower, positions = tower_and_positions(args.sources)
    halves = {name: weight.half() for name, weight in tower.state_dict().items()}
    torch.save({"tower": halves, "positions": positions.half()}, args.output / TOWER_FILE)


def shrink(sources: Path, output: Path) -> None:
    """Copy and shrink images. They become WebP but keep their names: readers recognise the format by content."""
    for file in (file for noun in nouns() for file in noun.files):
        if (sources / file).exists():
            _copy(sources / file, output / file, "RGBA", CUTOUT_SIDE)
    for held_out in (False, True):
        for file in background_files(sources, held_out=held_out):
            _copy(file, output / file.relative_to(sources), "RGB", BACKGROUND_SIDE)
    (output / "fonts").mkdir(parents=True, exist_ok=True)
    for name in (*TRAINING_FONTS, *HELD_OUT_FONTS):
        if (sources / "fonts" / f"{name}.ttf").exists():
            shutil.copy(sources / "fonts" / f"{name}.ttf", output / "fonts")
    for complete in ("complete", "complete-3"):
        (output / complete).touch()


def _copy(source: Path, target: Path, mode: str, side: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(source).convert(mode)
    image.thumbnail((side, side))
    image.save(target, format="WEBP", quality=88)


if __name__ == "__main__":
    main()
