"""Fetch the sources and train the bundled model, resuming where it stopped."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from tokenprune.evals.dev.train import state
from tokenprune.evals.dev.train.run import Run
from tokenprune.evals.dev.train.sources.emoji import fetch_all
from tokenprune.evals.dev.train.stages.stage_one import learn_patches
from tokenprune.evals.dev.train.stages.stage_two import learn_answers


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tokenprune.evals.dev.train", description=__doc__)
    parser.add_argument("--sources", type=Path, default=Path("training/sources"), help="downloaded packages")
    parser.add_argument("--output", type=Path, default=Path("training/run"), help="checkpoints, log and model")
    parser.add_argument("--install", type=Path, help="copy the finished model here, for example evals/bundled/model")
    parser.add_argument(
        "--version-1", type=Path, default=Path("training/version_1/model"), help="folder of the model to grow"
    )
    parser.add_argument("--warm-batches", type=int, default=50, help="batches whose features are kept for the warm-up")
    parser.add_argument(
        "--warm-steps", type=int, default=800, help="steps before stage one, with the whole tower frozen"
    )
    parser.add_argument("--patch-steps", type=int, default=1900, help="steps of stage one")
    parser.add_argument("--patch-tokens", type=int, default=4096, help="visual tokens per step of stage one")
    parser.add_argument("--steps", type=int, default=3000, help="steps of stage two; may be changed when resuming")
    parser.add_argument(
        "--cooldown", type=int, default=1500, help="steps at the end over which the learning rate falls"
    )
    parser.add_argument("--tokens", type=int, default=7168, help="tokens per step of stage two")
    parser.add_argument("--fresh", type=float, default=0.4, help="share of a step's scenes that are new")
    parser.add_argument("--pool", type=int, default=600, help="scenes of each grid that are kept for reuse")
    parser.add_argument(
        "--all-things-at", type=int, default=1, help="the step from which scenes hold the full number of things"
    )
    parser.add_argument(
        "--aids-until", type=int, default=3000, help="the step by which the losses look and align have faded out"
    )
    parser.add_argument(
        "--tower-rate", type=float, default=2e-4, help="learning rate of stage one, for the tower's upper blocks"
    )
    parser.add_argument(
        "--patch-rate", type=float, default=5e-4, help="learning rate of stage one, for everything else"
    )
    parser.add_argument("--muon-rate", type=float, default=1e-3)
    parser.add_argument("--adam-rate", type=float, default=4e-4)
    parser.add_argument("--check-every", type=int, default=150)
    parser.add_argument("--save-every", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command resumes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that draw scenes; use with --fresh 1")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    fetch_all(args.sources)
    args.output.mkdir(parents=True, exist_ok=True)
    saved = state.latest(args.output)
    run = Run(args, saved)
    if saved is None or saved["stage"] == 1:
        if not learn_patches(run, saved):
            return
        saved = None
    if learn_answers(run, saved) and args.install is not None:
        shutil.copytree(args.output / "model", args.install, dirs_exist_ok=True)
        print(f"the model is in {args.install}")


if __name__ == "__main__":
    main()
