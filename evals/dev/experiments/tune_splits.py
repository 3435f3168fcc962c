"""Does what `tokenprune tune` promises hold on questions that it never saw?

    python -m tokenprune.evals.dev.experiments.tune_splits --output runs/splits --table FILE

asks the bundled model all bundled questions under a grid of settings. Then, for each of 20 seeds and each bound, it
hides a third of the images, searches and tests on the rest as `tune` does, with the grid in place of proposals, and
compares what it recommends with the hidden questions: their loss, and whether it is above the bound.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenprune.evals.cli.parser import script_parser
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.models.loading import limit_questions, load_processor, load_tasks
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.run import files
from tokenprune.evals.run.answers import AnswerKey
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.run_folder import RunFolder
from tokenprune.evals.run.setups import Pruned, Setup, make_setups
from tokenprune.evals.tasks._base.question import Question
from tokenprune.evals.tune.asking import UNPRUNED
from tokenprune.evals.tune.bounds import Loss
from tokenprune.evals.tune.confirm import confirm, sequence
from tokenprune.evals.tune.questions import Half, halves, image_numbers
from tokenprune.evals.tune.search import Plan, assess

STRATEGIES = ("fopru:layer=-2,score=cls,cells=auto", "mosaic:layer=-2", "visionzip:layer=-2", "vflowopt", "par:layer=3")
KEEP_RATIOS = (0.9, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
BOUNDS = (3.0, 5.0, 10.0)
N_SEEDS = 20


class Table:
    """Stands for an Asker whose answers are all there."""

    def __init__(self, folder: Path) -> None:
        self._scores = {key: answer.score or 0.0 for key, answer in RunFolder(folder).answers().items()}
        self.n_mean = {answer.key: answer.n_mean / answer.n_visual for answer in RunFolder(folder).answers().values()}

    def ask(self, setups: Sequence[Setup], half: Half) -> None:
        """They have been asked."""

    def scores(self, setup: Setup, questions: Sequence[Question]) -> list[float]:
        return [self._scores[AnswerKey(one.task, one.id, setup.key)] for one in questions]


def split(questions: Sequence[Question], seed: int) -> tuple[list[Question], list[Question]]:
    """The questions of two thirds of the images, and those of the hidden third."""
    numbers = image_numbers(questions)
    images = np.random.default_rng([seed, 7]).permutation(sorted(set(numbers.values())))
    hidden = set(images[: len(images) // 3].tolist())
    shown = [one for one in questions if numbers[one.task, one.id] not in hidden]
    return shown, [one for one in questions if numbers[one.task, one.id] in hidden]


def outcome(
    table: Any, grid: Sequence[Pruned], questions: Sequence[Question], bound: float, seed: int
) -> dict[str, Any]:
    """What is recommended for one split, and what it loses on the hidden questions."""
    shown, hidden = split(questions, seed)
    first, fresh = halves(shown, seed)
    plan = Plan(bound, 1, len(grid), len(fresh.questions), seed)
    tried = [assess(table, setup, table.n_mean[setup.key], first, plan, whole=True) for setup in grid]
    passed = [one.tried for one in confirm(sequence(tried), fresh, table, bound) if one.passed]
    record: dict[str, Any] = {"seed": seed, "bound": bound, "n_hidden": len(hidden)}
    if not passed:
        return {**record, "setting": None}
    best = passed[-1]
    images = list(image_numbers(hidden).values())
    loss = Loss.of(table.scores(best.setup, hidden), table.scores(UNPRUNED, hidden), images)
    found = {"setting": str(best.setup.key), "cost": best.cost, "points": loss.points, "interval": loss.interval}
    return {**record, **found, "above": loss.points > bound, "surely_above": loss.interval[0] > bound}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--model", default=str(MODEL), metavar="PATH", help="model folder")
    parser.add_argument("--data", type=Path, default=SCENES, metavar="DIR", help="the questions")
    parser.add_argument("--bound", nargs="+", type=float, default=list(BOUNDS), metavar="POINTS", help="losses allowed")
    parser.add_argument("--seeds", type=int, default=N_SEEDS, metavar="N", help="how many splits")
    parser.add_argument("--limit", type=int, metavar="N", help="questions per task (default: all)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--table", type=Path, required=True, metavar="FILE", help="file of the outcomes, JSON lines")
    options = parser.parse_args(arguments)
    evaluate(
        options.model,
        output=options.output,
        strategies=STRATEGIES,
        keep_ratios=KEEP_RATIOS,
        position_ids=["original"],
        baselines=["unpruned"],
        data=options.data,
        limit=options.limit,
        dtype="bfloat16",
    )
    grid = [one for one in make_setups(STRATEGIES, KEEP_RATIOS, ["original"], []) if isinstance(one, Pruned)]
    style = style_of(*load_processor(options.model))
    questions = limit_questions(load_tasks(options.data, None, style=style), options.limit)
    table = Table(options.output)
    outcomes = [
        outcome(table, grid, questions, bound, seed) for bound in options.bound for seed in range(options.seeds)
    ]
    files.replace(options.table, "".join(f"{json.dumps(one)}\n" for one in outcomes))
    for bound in options.bound:
        kept = [one for one in outcomes if one["bound"] == bound and one["setting"] is not None]
        above, surely = (sum(one[name] for one in kept) for name in ("above", "surely_above"))
        print(f"{bound:g} points: {len(kept)} of {options.seeds} recommended; {above} above the bound, {surely} surely")


if __name__ == "__main__":
    main()
