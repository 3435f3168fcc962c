"""Budgets that adapt to the image beside fixed ones of the same average, question by question.

    python -m tokenprune.evals.dev.experiments.adaptive --output runs/adaptive --table FILE

asks the bundled model all bundled questions with each strategy at several shares of the importance, and at the fixed
keep ratio that keeps as many tokens on average. Each question is answered by both, so differences are paired.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tokenprune.evals.cli.parser import script_parser
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.run import files
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.results import TaskResult
from tokenprune.evals.stats.intervals import interval, paired

STRATEGIES = ("fopru:layer=-2,score=cls", "visionzip:layer=-2")
MASSES = (0.5, 0.7)
MOST = 0.6


def measure(options: Namespace) -> list[dict[str, object]]:
    """Return one record per strategy, share and task."""
    common = {"data": options.data, "position_ids": ["original"], "dtype": "bfloat16", "limit": options.limit}
    records = []
    for strategy in options.strategy:
        adaptive = [f"{strategy},mass={mass}" for mass in options.mass]
        found = evaluate(
            options.model,
            output=options.output / f"{strategy} adaptive".replace(":", " "),
            strategies=adaptive,
            keep_ratios=[MOST],
            baselines=["unpruned"],
            **common,
        )
        pruned = [row for row in found if row.settings]
        of_mass = {mass: [row for row in pruned if row.settings["mass"] == mass] for mass in options.mass}
        for mass, rows in of_mass.items():
            n_kept, n_visual = (sum(getattr(row, name) for row in rows) / len(rows) for name in ("n_kept", "n_visual"))
            fixed = evaluate(
                options.model,
                output=options.output / f"{strategy} fixed {mass}".replace(":", " "),
                strategies=[strategy],
                keep_ratios=[round(n_kept / n_visual, 4)],
                baselines=[],
                **common,
            )
            records += [_compared(row, other, strategy, mass) for row, other in zip(rows, fixed, strict=True)]
    return records


def _compared(adaptive: TaskResult, fixed: TaskResult, strategy: str, mass: float) -> dict[str, object]:
    assert adaptive.questions == fixed.questions
    points, images = zip(*adaptive.scored_images, strict=True)
    difference = paired(adaptive.points, fixed.points, images)
    return {
        "strategy": strategy,
        "mass": mass,
        "task": adaptive.task,
        "n": adaptive.n,
        "adaptive": {"n_kept": adaptive.n_kept, "accuracy": adaptive.accuracy, "interval": interval(points, images)},
        "fixed": {"n_kept": fixed.n_kept, "accuracy": fixed.accuracy, "interval": interval(fixed.points, images)},
        "difference": {"points": difference.difference, "interval": difference.interval, "p": difference.p},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--model", default=str(MODEL), metavar="PATH", help="model folder")
    parser.add_argument("--data", type=Path, default=SCENES, metavar="DIR", help="the questions")
    parser.add_argument("--strategy", nargs="+", default=list(STRATEGIES), metavar="NAME", help="strategies")
    parser.add_argument("--mass", nargs="+", type=float, default=list(MASSES), metavar="SHARE", help="shares")
    parser.add_argument("--limit", type=int, metavar="N", help="questions per task (default: all)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--table", type=Path, required=True, metavar="FILE", help="file of the records, JSON lines")
    options = parser.parse_args(arguments)
    records = measure(options)
    files.replace(options.table, "".join(f"{json.dumps(record)}\n" for record in records))


if __name__ == "__main__":
    main()
