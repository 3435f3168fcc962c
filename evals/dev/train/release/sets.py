"""Write the bundled sets: `python -m tokenprune.evals.dev.train.release.sets --sources DIR --output DIR`.

Then `python -m tokenprune.evals.dev.train.release.check DIR/*` summarises them.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from tokenprune.evals.dev.train.release.choose import SHARE_ALIKE, draw_set
from tokenprune.evals.dev.train.release.plans import HELD_OUT_THINGS, SETS, SetPlan
from tokenprune.evals.dev.train.release.write import SetFiles
from tokenprune.evals.dev.train.scenes.assets import Assets, load_assets
from tokenprune.evals.dev.train.sources.emoji import fetch_all

LICENCES = "LICENSE.md", "COPYING"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True, help="folder for downloads")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the sets to, one folder each")
    parser.add_argument(
        "--sets", nargs="+", choices=[plan.name for plan in SETS], help="only these sets (default: all)"
    )
    args = parser.parse_args()
    fetch_all(args.sources)
    sides = {
        split: licensed(load_assets(args.sources, held_out_things=held_out, held_out_backgrounds=True))
        for split, held_out in HELD_OUT_THINGS.items()
    }
    write_sets(args.output, sides, [plan for plan in SETS if args.sets is None or plan.name in args.sets])


def licensed(assets: Assets) -> Assets:
    """Return only the assets whose licences allow their use in the sets."""
    return replace(assets, cutouts=tuple(c for c in assets.cutouts if c.file.split("/")[0] not in SHARE_ALIKE))


def write_sets(output: Path, sides: dict[str, Assets], plans: Sequence[SetPlan] = SETS) -> None:
    """Write one folder per plan. `sides` are the assets of each split."""
    for plan in plans:
        files = SetFiles(output / plan.name, f"tokenprune {plan.name}: cut-outs on held-out backgrounds")
        for split, count in plan.images.items():
            for asked in tqdm(draw_set(plan, split, sides[split]), total=count, desc=f"{plan.name} {split}"):
                files.add(asked, split)
        files.write()
        for name in LICENCES:
            shutil.copy(Path(__file__).with_name(name), output / plan.name)


if __name__ == "__main__":
    main()
