"""Measure every table of the bundled model's accuracy, and judge goals and published directions by it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tokenprune.evals.dev.measure.directions import INSIDE, directions
from tokenprune.evals.dev.measure.goals import goals_table
from tokenprune.evals.dev.measure.plan import PRUNED, UNPRUNED, Part
from tokenprune.evals.dev.measure.run import Measuring, equal_cache, write_rows
from tokenprune.evals.models.bundled import SETTINGS, VERSION_2
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.run.results import TaskResult
from tokenprune.evals.run.results_io import read

UNPRUNED_ROWS, VERDICTS = "unpruned.jsonl", "verdicts.md"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tokenprune.evals.dev.measure", description=__doc__)
    parser.add_argument("--model", default=str(VERSION_2 / "model"), help="folder of the model")
    parser.add_argument("--data", type=Path, default=VERSION_2, help="folder of the sets")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="folder of VFlowOpt's settings files")
    parser.add_argument("--output", type=Path, default=Path("runs/tables"), help="runs, rows and verdicts")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--questions", type=int, help="most of each task, instead of what the plan says")
    parser.add_argument("--parts", nargs="+", metavar="NAME", help="only these parts of the plan (default: all)")
    parser.add_argument("--estimate", action="store_true", help="only say how many answers are missing, and the time")
    parser.add_argument("--judge", action="store_true", help="only judge the rows that are there")
    args = parser.parse_args(arguments)
    console = Console()
    if not args.judge:
        settings = sorted(args.settings.glob("*.json")) if args.settings.is_dir() else []
        model = load_model(args.model, args.dtype)
        run = Measuring(model, args.data, args.output, settings, args.dtype, args.questions)
        whole, pruned = (
            [part for part in parts if args.parts is None or part.name in args.parts] for parts in (UNPRUNED, PRUNED)
        )
        _say_the_time(run, [*whole, *pruned], console)
        if args.estimate:
            return
        _measure(run, whole, pruned, console)
    text = verdicts(args.output)
    (args.output / VERDICTS).write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def _say_the_time(run: Measuring, parts: Sequence[Part], console: Console) -> None:
    total, hours = 0, 0.0
    for part in parts:
        missing = run.missing([part])
        seconds = run.seconds_an_answer(part) if missing else 0.0
        total, hours = total + missing, hours + missing * seconds / 3600
        kind = f"{len(part.ratios)} keep ratios" if part.ratios else "unpruned"
        console.print(f"{part.name}, {kind}: {missing} answers missing, {seconds:.3f} s each unpruned", soft_wrap=True)
    console.print(
        f"{total} answers missing, at most {hours:.1f} hours here if pruned ones take as long", soft_wrap=True
    )


def _measure(run: Measuring, whole: Sequence[Part], pruned: Sequence[Part], console: Console) -> None:
    rows = [row for part in whole for row in run.measure(part, console)]
    if rows:
        write_rows(rows, run.output / UNPRUNED_ROWS)
    for part in pruned:
        rows = run.measure(part, console)
        if part is PRUNED[0] and (equal := equal_cache(rows, INSIDE)) is not None:
            console.print("at equal KV caches: " + " ".join(f"{100 * ratio:g} %" for ratio in equal.ratios))
            rows += [row for row in run.measure(equal, console) if row.keep_ratio < 1]
        write_rows(rows, run.output / f"pruned_{part.name}.jsonl")


def verdicts(output: Path) -> str:
    """Return the goals and, of each set that was pruned, the directions."""
    parts: list[str] = []
    if (output / UNPRUNED_ROWS).exists():
        parts.append(f"## Goals, unpruned\n\n{goals_table(read([output / UNPRUNED_ROWS]))}\n")
    for file in sorted(output.glob("pruned_*.jsonl")):
        rows: list[TaskResult] = read([file])
        parts.append(f"## {rows[0].scenes}\n\n{directions(rows)}")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
