"""Accuracy against visual tokens: `python -m tokenprune.evals --help`."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tokenprune.evals.bundled_paths import MODEL, SCENES
from tokenprune.evals.configurations import DEFAULT_KEEP_RATIOS, DEFAULT_STRATEGIES, configurations
from tokenprune.evals.loading import load_model, load_samples
from tokenprune.evals.runner import Row, run
from tokenprune.evals.table import table


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    compared = configurations(options.strategies, options.keep_ratios)
    sets = {folder: load_samples(folder, split=options.split, limit=options.limit) for folder in options.scenes}
    model, processor = load_model(options.model, options.dtype)
    console = Console(width=None if Console().is_terminal else 140)  # a pipe has no width; 80 would break the table
    results: dict[Path, list[Row]] = {folder: [] for folder in sets}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", encoding="utf-8") as output, Progress(*columns, console=console) as progress:
        for folder, samples in sets.items():
            bar = progress.add_task(f"{folder.name}, questions", total=len(samples) * len(compared))
            answered = partial(progress.advance, bar)
            for row in run(model, processor, samples, compared, batch_size=options.batch_size, on_answers=answered):
                results[folder].append(row)
                output.write(json.dumps({"scenes": folder.name, "model": options.model, **asdict(row)}) + "\n")
                output.flush()
    for folder, rows in results.items():
        console.print(table(rows, f"{Path(options.model).name} on {folder.name}"))
    console.print(f"Every answer is in {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tokenprune.evals",
        description="Ask a model the questions of RefCOCO and VQAv2 files, unpruned and under every strategy, and "
        "print accuracy, visual tokens and KV cache.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default=str(MODEL), help="a folder or a Hugging Face name")
    parser.add_argument(
        "--scenes",
        type=Path,
        nargs="+",
        default=[SCENES],
        metavar="DIR",
        help="instances.json, refs(NAME).p or .json, *questions.json, *annotations.json, and images/",
    )
    parser.add_argument("--split", help="of refs and of VQA pictures; without it all but train")
    parser.add_argument("--limit", type=int, metavar="N", help="N questions of each task, spread evenly")
    parser.add_argument(
        "--strategies", nargs="+", default=DEFAULT_STRATEGIES, metavar="NAME", help="with settings: fopru:mode=row"
    )
    parser.add_argument("--keep-ratios", type=float, nargs="+", default=DEFAULT_KEEP_RATIOS, metavar="RATIO")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--output", type=Path, default=Path("runs/results.jsonl"), help="one JSON line for each row")
    return parser


if __name__ == "__main__":
    main()
