"""Make the bundled model from its sources: fetch, train (resuming by itself), export."""

from __future__ import annotations

import shutil

from tokenprune.evals.dev.train.sources import fetch_sources
from tokenprune.evals.dev.train.train import arguments, train

if __name__ == "__main__":
    args = arguments()
    fetch_sources(args.sources)
    train(args)
    if args.install is not None:
        shutil.copytree(args.output / "model", args.install, dirs_exist_ok=True)
        print(f"the model is in {args.install}")
