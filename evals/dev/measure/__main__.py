"""Measure every table of the bundled model's accuracy, and judge published findings by the results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tokenprune.evals.dev.measure.directions import directions
from tokenprune.evals.dev.measure.estimate import estimate
from tokenprune.evals.dev.measure.plan import PRUNED, Part, planned
from tokenprune.evals.dev.measure.run import Measuring
from tokenprune.evals.dev.measure.steps import equal_cache
from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.models.bundled import BUNDLED
from tokenprune.evals.models.loading import load_model, public_name
from tokenprune.evals.run.setups import UNPRUNED as NOT_PRUNED
from tokenprune.evals.storage.results_io import read


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tokenprune.evals.dev.measure", description=__doc__)
    parser.add_argument("--model", default=str(BUNDLED / "model"), help="folder of the model")
    parser.add_argument("--data", type=Path, default=BUNDLED, help="folder of the sets")
    parser.add_argument(
        "--settings", type=Path, default=BUNDLED / "settings", help="folder of VFlowOpt's settings files"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS / "accuracy",
        help="folder for rows to commit; existing ones are read first",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/tables"), help="folder for all answers and the verdicts"
    )
    parser.add_argument("--dtype", default="float32", choices=("bfloat16", "float32"))
    parser.add_argument("--questions", type=int, help="maximum number of questions per task, instead of the plan's")
    parser.add_argument("--parts", nargs="+", metavar="NAME", help="only these parts of the plan (default: all)")
    parser.add_argument(
        "--ratios",
        nargs="+",
        type=float,
        metavar="RATIO",
        help="only these keep ratios of the plan; 1 stands for the questions that only the unpruned model is asked "
        "(default: all, and those that give equal KV caches)",
    )
    parser.add_argument(
        "--estimate", action="store_true", help="only print how many answers are missing, and how long they take"
    )
    parser.add_argument("--judge", action="store_true", help="only judge the existing rows")
    args = parser.parse_args(arguments)
    _check(args, parser)
    console = Console()
    if not args.judge:
        settings = sorted(args.settings.glob("*.json")) if args.settings.is_dir() else []
        model, name = load_model(args.model, args.dtype), public_name(args.model)
        run = Measuring(model, name, args.data, args.output, args.runs, settings, args.dtype, args.questions)
        parts = [part for part in planned(args.ratios) if args.parts is None or part.name in args.parts]
        if args.estimate:
            _say_the_time(run, parts, console)
            return
        _measure(run, parts, console)
    text = verdicts(args.output)
    args.runs.mkdir(parents=True, exist_ok=True)
    (args.runs / "verdicts.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def _check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    plan = planned()
    known: dict[str, list[Any]] = {
        "parts": list(dict.fromkeys(part.name for part in plan)),
        "ratios": sorted({1.0}.union(*(part.ratios for part in plan)), reverse=True),
    }
    for option, values in known.items():
        if wrong := [value for value in getattr(args, option) or () if value not in values]:
            listed = ", ".join(f"{value:g}" if isinstance(value, float) else value for value in values)
            parser.error(f"--{option}: {wrong[0]} is not in the plan, which has {listed}")


def _say_the_time(run: Measuring, parts: Sequence[Part], console: Console) -> None:
    total, hours = 0, 0.0
    for part in parts:
        missing, seconds = estimate(run, part)
        total, hours = total + missing, hours + seconds / 3600
        kind = f"{len(part.ratios)} keep ratios" if part.ratios else NOT_PRUNED
        console.print(f"{part.name}, {kind}: {missing} answers missing, {seconds / 60:.0f} minutes", soft_wrap=True)
    console.print(f"{total} answers missing, about {hours:.1f} hours here in one process", soft_wrap=True)


def _measure(run: Measuring, parts: Sequence[Part], console: Console) -> None:
    first, is_equalled = PRUNED[0], PRUNED[0] not in parts
    for part in parts:
        run.measure(part, console)
        # Tried after each part, because another process may still be measuring a step of the first part.
        if not is_equalled and (rows := run.rows(first)) is not None:
            if (equal := equal_cache(rows)) is not None:
                console.print("at equal KV caches: " + " ".join(f"{100 * ratio:g} %" for ratio in equal.ratios))
                run.measure(equal, console)
            is_equalled = True


def verdicts(output: Path) -> str:
    """Return the published findings, for each set that was pruned."""
    parts: list[str] = []
    for folder in sorted({file.parent for file in output.glob("*/*.jsonl")}):
        if folder.name != NOT_PRUNED:
            rows = read(sorted(folder.glob("*.jsonl")))
            parts.append(f"## {rows[0].dataset}\n\n{directions(rows)}")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
