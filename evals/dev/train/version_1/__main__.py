"""Make version 1 of the bundled model from its sources: fetch, train (resuming by itself), export."""

from __future__ import annotations

from tokenprune.evals.dev.train.sources.stamps import fetch_sources
from tokenprune.evals.dev.train.version_1.train import arguments, train

if __name__ == "__main__":
    args = arguments()
    fetch_sources(args.sources)
    train(args)
    print(f"the model is in {args.output / 'model'}; the bundled model is grown from it")
