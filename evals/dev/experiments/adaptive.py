"""Budgets that adapt to the image against fixed ones with the same average, question by question.

    python -m tokenprune.evals.dev.experiments.adaptive --output runs/adaptive --table FILE --image FILE

evaluates the bundled model with each strategy at several shares of the importance, and at the fixed keep ratio that
keeps the same number of tokens on average. Both answer every question, so differences are paired.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tokenprune.evals.cli.arguments.parser import script_parser
from tokenprune.evals.dev.experiments.locked_scorer import locked_scorer
from tokenprune.evals.dev.figures.adaptive import draw
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.run.setups import Setup, make_setups
from tokenprune.evals.stats import interval, paired
from tokenprune.evals.storage import files
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tune.questions import image_numbers
from tokenprune.evals.tune.scoring import UNPRUNED, ModelScorer

STRATEGIES = ("fopru:layer=-2,score=cls", "visionzip:layer=-2")
MASSES = (0.3, 0.5, 0.7)
MOST = 0.6


def measure(options: Namespace) -> list[dict[str, Any]]:
    """Return one record for the unpruned model on each task, and one per strategy, share and task."""
    asked = [(strategy, mass) for strategy in options.strategy for mass in options.mass]
    n_setups = 1 + 2 * len(asked)
    with locked_scorer(options.model, options.data, options.limit, options.output, n_setups) as (scorer, half):
        adaptive = make_setups([f"{strategy},mass={mass}" for strategy, mass in asked], [MOST], ["original"], [])
        scorer.ask([UNPRUNED, *adaptive], half)
        n_visual = fmean(scorer.n_tokens(UNPRUNED, half.questions))
        ratios = [round(fmean(scorer.n_tokens(setup, half.questions)) / n_visual, 4) for setup in adaptive]
        fixed = [
            make_setups([strategy], [ratio], ["original"], [])[0]
            for (strategy, _), ratio in zip(asked, ratios, strict=True)
        ]
        scorer.ask(fixed, half)
        tasks: dict[str, list[Question]] = {}
        for question in half.questions:
            tasks.setdefault(question.task, []).append(question)
        records = [
            {"strategy": "unpruned", "task": task, **_accuracy(scorer, UNPRUNED, questions)}
            for task, questions in tasks.items()
        ]
        for (strategy, mass), own, other in zip(asked, adaptive, fixed, strict=True):
            records += [
                {"strategy": strategy, "mass": mass, "task": task, **compared(scorer, own, other, questions)}
                for task, questions in tasks.items()
            ]
    return records


def compared(scorer: ModelScorer, adaptive: Setup, fixed: Setup, questions: Sequence[Question]) -> dict[str, Any]:
    """Return the accuracy of both setups on the questions of one task, and by how much the adaptive one is better, as
    fractions with 95 % intervals."""
    images = list(image_numbers(questions).values())
    found = paired(scorer.scores(adaptive, questions), scorer.scores(fixed, questions), images)
    n_tokens = scorer.n_tokens(adaptive, questions)
    return {
        "n": found.n,
        "adaptive": {
            **_accuracy(scorer, adaptive, questions),
            "fewest": round(min(n_tokens)),
            "most": round(max(n_tokens)),
        },
        "fixed": _accuracy(scorer, fixed, questions),
        "difference": {"points": found.difference, "interval": found.interval, "p": found.p},
    }


def _accuracy(scorer: ModelScorer, setup: Setup, questions: Sequence[Question]) -> dict[str, Any]:
    scores, images = scorer.scores(setup, questions), list(image_numbers(questions).values())
    return {
        "n": len(questions),
        "tokens": fmean(scorer.n_tokens(setup, questions)),
        "accuracy": fmean(scores),
        "interval": interval(scores, images),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--model", default=str(MODEL), metavar="PATH", help="model folder")
    parser.add_argument("--data", type=Path, default=SCENES, metavar="DIR", help="data set to evaluate on")
    parser.add_argument("--strategy", nargs="+", default=list(STRATEGIES), metavar="NAME", help="strategies")
    parser.add_argument(
        "--mass", nargs="+", type=float, default=list(MASSES), metavar="SHARE", help="shares of the importance"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="questions per task (default: all)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the answers")
    parser.add_argument(
        "--table", type=Path, required=True, metavar="FILE", help="file to write the records to, as JSON lines"
    )
    parser.add_argument("--image", type=Path, required=True, metavar="FILE", help="file to write the figure to")
    options = parser.parse_args(arguments)
    records = measure(options)
    files.replace(options.table, "".join(f"{json.dumps(record)}\n" for record in records))
    draw(records, options.image)


if __name__ == "__main__":
    main()
