"""Compare the time of every strategy with that of its ideal, at 50, 25 and 10 % on models of three shapes.

    python -m tokenprune.evals.dev.experiments.ideals --output evals/results/data/ideals
    python -m tokenprune.evals.dev.experiments.ideals --shape llava-1.5-0.5b --strategy flowcut --cpu-time

Each strategy is timed on its own, alternating with its ideal, and a shape's file is written after every round: the same
command resumes an interrupted run, even within a strategy. The unpruned model is not timed. `--cpu-time` is for a
machine with other load, which hardly affects the CPU time of one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import tokenprune
from tokenprune.errors import TokenPruneError
from tokenprune.evals.bench.cases import IDEAL, cases, facts
from tokenprune.evals.bench.inputs import prompts
from tokenprune.evals.bench.inputs.build import build
from tokenprune.evals.bench.inputs.shapes import config_of
from tokenprune.evals.bench.measuring import measure_cases
from tokenprune.evals.bench.record import Record, about
from tokenprune.evals.bench.timing.memory import keep_memory
from tokenprune.evals.dev.tables.speed.ideals import table
from tokenprune.evals.run.setups import UNPRUNED, Pruned, make_setups

#: The side of each shape's image in pixels.
SHAPES = {"llava-1.5-0.5b": 336, "llava-onevision-0.5b": 384, "internvl3.5-1b": 448}
KEEP_RATIOS = (0.5, 0.25, 0.1)
ROUNDS = 7
#: The strategies whose selection takes longest, which are measured first.
FIRST = ("tome", "flowcut", "sparsevlm", "attentionmass", "adatoken", "vispruner", "pyramiddrop", "vflowopt")


def strategies() -> list[str]:
    """Return all strategies that prune one image to a keep ratio, the slowest first."""
    others = sorted(
        name
        for name, cls in tokenprune.STRATEGIES.items()
        if name not in FIRST and not {"frames", "canvas_attention", "kept_before_tower"} & cls().needs
    )
    return [*FIRST, *others]


def measure(model: Any, inputs: prompts.Inputs, asked: Sequence[Pruned], record: Record, rounds: int) -> None:
    """Time each strategy and its ideal until `record` has `rounds` rounds of it. Print the ones that cannot prune the
    model."""
    batch = len(inputs["input_ids"])
    for setup in asked:
        try:
            unpruned, *pair = cases(model, inputs, [setup], record.facts)
        except TokenPruneError as error:
            print(f"{setup.label} @ {setup.keep_ratio:g}: {error}", flush=True)
            continue
        if (batch, UNPRUNED) not in record.facts:  # the costs of the other cases are shown relative to these
            record.add(facts(model, inputs, unpruned))
        missing = rounds - record.n_rounds(batch, pair[-1].name)
        if missing > 0 and pair[0].strategy == IDEAL:
            measure_cases(model, inputs, pair, record, rounds=missing)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--strategy", nargs="+", default=strategies(), metavar="NAME")
    parser.add_argument("--keep-ratio", nargs="+", type=float, default=list(KEEP_RATIOS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--cpu-time", action="store_true", help="measure the CPU time of one thread instead of wall time"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/ideals"), help="folder for one file per shape")
    options = parser.parse_args(arguments)
    if options.cpu_time:
        torch.set_num_threads(1)
    keeps_memory = keep_memory()
    for shape in options.shape:
        began = time.monotonic()
        model = build(shape, config_of(shape), torch.float32, torch.device("cpu"), "sdpa")
        told = about(model, f"random weights in the shape of {shape}", "sdpa", SHAPES[shape], cpu_time=options.cpu_time)
        record = Record.open(options.output / f"{shape}.json", {**told, "keeps_memory": keeps_memory})
        inputs = prompts.random_prompt(model, 1, side=SHAPES[shape])
        for strategy in options.strategy:
            setups = make_setups([strategy], options.keep_ratio, ["original"], baselines=())
            measure(model, inputs, [setup for setup in setups if isinstance(setup, Pruned)], record, options.rounds)
        del model
        print(f"{table([record])}\n\n{shape}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
