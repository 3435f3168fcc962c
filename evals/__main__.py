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
from tokenprune.evals.calibration import apart
from tokenprune.evals.configurations import DEFAULT_KEEP_RATIOS, DEFAULT_STRATEGIES, Configuration, configurations
from tokenprune.evals.loading import limited, load_model, load_samples, public_name
from tokenprune.evals.row_files import to_line
from tokenprune.evals.rows import Row
from tokenprune.evals.runner import run
from tokenprune.evals.sample import Sample
from tokenprune.evals.styles import style_of
from tokenprune.evals.table import table


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    compared = configurations(options.strategies, options.keep_ratios)
    console = Console(width=None if Console().is_terminal else 140)  # a pipe has no width; 80 would break the table
    model, processor = load_model(options.model, options.dtype)
    style = style_of(model.config, processor)
    sets = {
        folder: _asked(load_samples(folder, split=options.split, style=style), folder, options.limit, compared, console)
        for folder in options.scenes
    }
    results: dict[Path, list[Row]] = {folder: [] for folder in sets}
    answers_path = options.output.with_suffix(".answers.jsonl")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with (
        options.output.open("w", encoding="utf-8") as output,
        answers_path.open("w", encoding="utf-8") as answers_output,
        Progress(*columns, console=console) as progress,
    ):
        for folder, samples in sets.items():
            bar = progress.add_task(f"{folder.name}, questions", total=len(samples) * len(compared))
            for row, answers in run(
                model,
                processor,
                samples,
                compared,
                scenes=folder.name,
                model_name=public_name(options.model),
                batch_size=options.batch_size,
                on_answers=partial(progress.advance, bar),
            ):
                results[folder].append(row)
                output.write(to_line(row) + "\n")
                output.flush()
                for answer in answers:
                    said = {"scenes": row.scenes, "task": row.task, **row.key._asdict(), **asdict(answer)}
                    answers_output.write(json.dumps(said) + "\n")
    for folder, rows in results.items():
        console.print(table(rows, f"{Path(options.model).name} on {folder.name}"))
    console.print(f"Rows are in {options.output}, every answer in {answers_path}")
    console.print(
        f"python -m tokenprune.evals.report {options.output}  # the same with paired differences, as Markdown"
    )


def _asked(
    samples: Sequence[Sample], folder: Path, limit: int | None, compared: Sequence[Configuration], console: Console
) -> list[Sample]:
    """Return the questions that every configuration is asked: none about a picture that one was calibrated on."""
    calibration = frozenset[str]().union(*(configuration.calibrated_on for configuration in compared))
    left = apart(samples, calibration, str(folder))
    if calibration:
        console.print(
            f"{folder.name}: {len(samples) - len(left)} of {len(samples)} questions are left out for all "
            f"configurations: they are about pictures that settings files were calibrated on "
            f"({len(calibration)} pictures)."
        )
    return limited(left, limit)


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
    parser.add_argument(
        "--limit", type=_limit, default=500, metavar="N", help="N questions of each task, spread evenly, or all"
    )
    parser.add_argument(
        "--strategies",
        nargs="*",
        default=DEFAULT_STRATEGIES,
        metavar="NAME",
        help="with settings: fopru:mode=row; a settings file: its path; none: the unpruned model alone",
    )
    parser.add_argument("--keep-ratios", type=float, nargs="+", default=DEFAULT_KEEP_RATIOS, metavar="RATIO")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/results.jsonl"),
        help="one JSON line for each row; the answers go beside it",
    )
    return parser


def _limit(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of questions nor all")
    return int(text)


if __name__ == "__main__":
    main()
