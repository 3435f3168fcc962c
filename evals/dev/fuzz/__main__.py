"""Compare random draws with masking: `python -m tokenprune.evals.dev.fuzz --draws N --seed S --output FILE.jsonl`,
with PYTHONPATH=tests."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from tokenprune.evals.dev.fuzz.draw import draw
from tokenprune.evals.dev.fuzz.log import Log, counts, summary


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tokenprune.evals.dev.fuzz", description=__doc__)
    parser.add_argument("--draws", type=int, default=200, help="number of draws, including those already in the file")
    parser.add_argument("--seed", type=int, default=0, help="seed that determines every draw")
    parser.add_argument("--output", type=Path, help="one line per draw; an interrupted run resumes from it")
    parser.add_argument("--only", type=int, metavar="INDEX", help="repeat only this draw, and print it in full")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    if options.only is not None:
        result = draw(options.seed, options.only)
        for name, value in result.line().items():
            print(f"{name}: {value}")
        return int(result.outcome == "failed")
    with Log.opened(options.output, options.seed) as log:
        print(f"seed {options.seed}, draws {len(log.lines)} to {options.draws}", flush=True)
        for index in range(len(log.lines), options.draws):
            result = draw(options.seed, index)
            log.add(result.line())
            if result.outcome == "failed":
                replay = f"PYTHONPATH=tests python -m tokenprune.evals.dev.fuzz --seed {options.seed} --only {index}"
                failed = f"FAILED: {result.family}, {result.settings}, {result.mode}: {result.reason}"
                print(f"{failed}\n  {replay}", flush=True)
    print(summary(log.lines))
    return int(counts(log.lines)["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
