"""Does the bound of `tokenprune tune` hold on questions that it never saw?

    python -m tokenprune.evals.dev.experiments.tune_splits --output runs/splits --table FILE

asks the bundled model all bundled questions once under each setting of a grid. Then, for each of 20 seeds and each
bound, it hides a third of the images, and searches and tests on the rest as `tune` does, with the stored answers:
successive halving of the grid, which replaces proposals, all questions for the leaders, then the tests in a fixed
order. The recommendation is checked on the hidden questions: how much accuracy it loses there, and whether that is
above the bound. `--rows` adds setups from stored rows, on the same questions and with original position IDs, without
asking them again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenprune.evals.cli.arguments.parser import script_parser
from tokenprune.evals.dev.experiments.locked_scorer import locked_scorer
from tokenprune.evals.dev.experiments.recorded import Recorded
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.run.setups import DOWNSAMPLE, Pruned, make_setups
from tokenprune.evals.run.setups import UNPRUNED as NOT_PRUNED
from tokenprune.evals.storage import files
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.storage.results_io import read
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tune.bounds import Loss
from tokenprune.evals.tune.confirm import confirm, sequence
from tokenprune.evals.tune.questions import halves, image_numbers
from tokenprune.evals.tune.scoring import UNPRUNED, Scorer
from tokenprune.evals.tune.search import SearchPlan, completed, halved

STRATEGIES = ("fopru:layer=-2,score=cls,cells=auto", "mosaic:layer=-2", "visionzip:layer=-2", "scope:layer=-2")
KEEP_RATIOS = (0.9, 0.75, 0.6, 0.5, 0.35, 0.2)
BOUNDS = (1.0, 3.0, 5.0, 10.0)
N_SEEDS = 20


def split(questions: Sequence[Question], seed: int) -> tuple[list[Question], list[Question]]:
    """Return the questions about two thirds of the images, and those about the hidden third."""
    numbers = image_numbers(questions)
    images = np.random.default_rng([seed, 7]).permutation(sorted(set(numbers.values())))
    hidden = set(images[: len(images) // 3].tolist())
    shown = [one for one in questions if numbers[one.key] not in hidden]
    return shown, [one for one in questions if numbers[one.key] in hidden]


def outcome(
    scorer: Scorer,
    costs: Mapping[SetupKey, float],
    grid: Sequence[Pruned],
    questions: Sequence[Question],
    bound: float,
    seed: int,
) -> dict[str, Any]:
    """Return what is recommended for one split, and what it loses on the hidden questions. All answers must exist."""
    shown, hidden = split(questions, seed)
    first, fresh = halves(shown, seed)
    plan = SearchPlan(bound, 1, len(grid), len(fresh.questions), seed)
    tried = completed(list(halved(grid, costs, plan, first, scorer).values()), plan, first, scorer)
    passed = [one.tried for one in confirm(sequence(tried), fresh, scorer, bound) if one.passed]
    record: dict[str, Any] = {"seed": seed, "bound": bound, "n_hidden": len(hidden)}
    if not passed:
        return {**record, "setting": None}
    best = passed[-1]
    images = list(image_numbers(hidden).values())
    loss = Loss.of(scorer.scores(best.setup, hidden), scorer.scores(UNPRUNED, hidden), images)
    found = {"setting": str(best.setup.key), "cost": best.cost, "points": loss.points, "interval": loss.interval}
    return {**record, **found, "above": loss.points > bound, "surely_above": loss.interval[0] > bound}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--model", default=str(MODEL), metavar="PATH", help="model folder")
    parser.add_argument("--data", type=Path, default=SCENES, metavar="DIR", help="data set to evaluate on")
    parser.add_argument(
        "--strategy", nargs="*", default=list(STRATEGIES), metavar="NAME", help="strategies of the grid"
    )
    parser.add_argument(
        "--keep-ratio", nargs="+", type=float, default=list(KEEP_RATIOS), metavar="R", help="keep ratios of the grid"
    )
    parser.add_argument("--bound", nargs="+", type=float, default=list(BOUNDS), metavar="POINTS", help="allowed losses")
    parser.add_argument("--seeds", type=int, default=N_SEEDS, metavar="N", help="number of splits")
    parser.add_argument("--limit", type=int, metavar="N", help="questions per task (default: all)")
    parser.add_argument(
        "--rows", nargs="+", type=Path, default=[], metavar="FILE", help="stored results to add to the grid"
    )
    parser.add_argument(
        "--apart",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="settings files whose calibration images the rows leave out",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the answers")
    parser.add_argument(
        "--table", type=Path, required=True, metavar="FILE", help="file to write the outcomes to, as JSON lines"
    )
    options = parser.parse_args(arguments)
    setups = make_setups(options.strategy, options.keep_ratio, ["original"], [])
    grid = [setup for setup in setups if isinstance(setup, Pruned)]
    holding = options.model, options.data, options.limit, options.output, 1 + len(grid), options.apart
    with locked_scorer(*holding) as (scorer, half):
        scorer.ask([UNPRUNED, *grid], half)
        questions = half.questions
        whole = sum(scorer.n_tokens(UNPRUNED, questions))
        costs = {setup.key: sum(scorer.n_tokens(setup, questions)) / whole for setup in grid}
        rows = read(options.rows) if options.rows else []
        pruned = [
            row for row in rows if row.position_ids == "original" and row.strategy not in (NOT_PRUNED, DOWNSAMPLE)
        ]
        recorded = Recorded(scorer, pruned, questions)
        outcomes = [
            outcome(recorded, costs | recorded.costs, [*grid, *recorded.setups], questions, bound, seed)
            for bound in options.bound
            for seed in range(options.seeds)
        ]
    files.replace(options.table, "".join(f"{json.dumps(one)}\n" for one in outcomes))
    for bound in options.bound:
        kept = [one for one in outcomes if one["bound"] == bound and one["setting"] is not None]
        above, surely = (sum(one[name] for one in kept) for name in ("above", "surely_above"))
        print(f"{bound:g} points: {len(kept)} of {options.seeds} recommended; {above} above the bound, {surely} surely")


if __name__ == "__main__":
    main()
