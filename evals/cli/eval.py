"""`tokenprune eval`: what pruning costs in accuracy, and saves in visual tokens and time."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from tokenprune.errors import SettingError
from tokenprune.evals.cli.arguments import options as shared
from tokenprune.evals.cli.arguments.parser import a_path, at_least, existing_file, json_object
from tokenprune.evals.cli.arguments.settings import add_settings
from tokenprune.evals.defaults import DEFAULT_KEEP_RATIOS, DEFAULT_STRATEGIES, POSITION_IDS

EXTRA = "evals"
NONE = "none"


def add_options(parser: ArgumentParser) -> None:
    shared.add_model(parser)
    default = f"those of {' '.join(DEFAULT_STRATEGIES)} that the model supports; with a server, the server's"
    ratios = " ".join(map(str, DEFAULT_KEEP_RATIOS))
    shared.add_strategies(parser, None, f"; {NONE}: baselines only (default: {default})")
    shared.add_keep_ratios(parser, None, f" (default: {ratios}; with a server, the server's)")
    shared.add_position_ids(parser, None, f" (default: {' '.join(POSITION_IDS)}; with a server, the server's)")
    parser.add_argument(
        "--baselines",
        nargs="+",
        metavar="NAME",
        help=f"baselines to run too: unpruned, random, downsample, or {NONE} (default: all that the model supports)",
    )
    shared.add_questions(parser, "run")
    parser.add_argument(
        "--apart-from",
        nargs="+",
        type=existing_file,
        default=[],
        metavar="FILE",
        help="settings files whose calibration images every setup leaves out, so that this run asks the same questions "
        "as a run of these files (default: those in --strategy)",
    )
    shared.add_frames(parser)
    parser.add_argument(
        "--image-size",
        nargs=2,
        type=at_least(1),
        metavar=("HEIGHT", "WIDTH"),
        help="size in pixels to resize images to, for a model that accepts several; changes the number of visual "
        "tokens in every setup (default: the processor's)",
    )
    parser.add_argument(
        "--pad",
        action="store_true",
        help="pad images to squares, as LLaVA-1.5 was trained, where the processor would crop them to the middle",
    )
    shared.add_dtype(parser)
    parser.add_argument(
        "--device-map",
        metavar="MAP",
        help="auto: spread a model that is too large for one device across all of them (default: one device)",
    )
    shared.add_batch_tokens(parser)
    parser.add_argument(
        "--on-error",
        choices=("stop", "record"),
        default="stop",
        help="when a question fails: stop, or record it and count it separately, never as a wrong answer",
    )
    parser.add_argument(
        "--engine",
        metavar="NAME",
        help="run in vllm, or on the `tokenprune serve` server at this URL (default: transformers, in this process)",
    )
    parser.add_argument(
        "--engine-options",
        type=json_object,
        metavar="JSON",
        help="with --engine vllm: arguments for vLLM's LLM, as JSON (default: {})",
    )
    add_settings(parser)
    parser.add_argument(
        "--output",
        type=a_path,
        default=Path("runs/eval"),
        metavar="DIR",
        help="run folder: settings, every answer, results; the same command resumes the run",
    )


def run(options: Namespace) -> None:
    """Measure accuracy, unpruned and with each strategy.

    The --data folder holds a `questions.jsonl` with lines like

      {"image": "1.jpg", "question": "What is in the cup?", "answer": "tea"}
      {"image": "1.jpg", "question": "the cup on the left", "box": [120, 40, 380, 260]}

    or published sets, such as POPE's files in a folder `pope`. Prints accuracy with 95 % intervals, visual tokens and
    KV cache. An interrupted run resumes with the same command.

    To split the questions across devices and machines, with the same answers:

      accelerate launch --num_processes 2 -m tokenprune.evals ...

    To compare and plot runs:

      tokenprune report runs/*
    """
    from tokenprune.evals.cli.output import console
    from tokenprune.evals.report.terminal import further_metrics, table
    from tokenprune.evals.run.evaluate import evaluate
    from tokenprune.evals.run.processes import processes

    screen = console(1000)
    rows = evaluate(
        options.model,
        output=options.output,
        strategies=_named(options.strategy, "--strategy"),
        keep_ratios=options.keep_ratio,
        position_ids=options.position_ids,
        baselines=_named(options.baselines, "--baselines"),
        tasks=options.tasks,
        data=options.data,
        split=options.split,
        limit=options.limit,
        apart_from=options.apart_from,
        dtype=options.dtype,
        device_map=options.device_map,
        batch_tokens=options.batch_tokens,
        on_error=options.on_error,
        image_roots=options.image_root,
        max_image_pixels=options.max_image_pixels,
        frames=options.frames,
        image_size=None if options.image_size is None else tuple(options.image_size),
        pad=options.pad,
        console=screen,
        engine=options.engine,
        engine_options=options.engine_options,
    )
    if processes().is_first:
        screen.print(table(rows, f"{rows[0].model} on {rows[0].dataset}"))
        if (beside := further_metrics(rows)) is not None:
            screen.print(beside)
        screen.print(
            f"Every answer is in {options.output}.\n"
            f"tokenprune report {quote(str(options.output))}  # paired differences, plots, a page"
        )


def _named(names: Sequence[str] | None, option: str) -> list[str] | None:
    """Return the names given to an option: [] for `none` alone, and None if the option was not given."""
    if names is None or NONE not in names:
        return None if names is None else list(names)
    others = [name for name in names if name != NONE]
    if others:
        raise SettingError(
            f"{option} {' '.join(names)}: {NONE} cannot be combined with other names. Leave out {NONE}, or write "
            f"{option} {NONE} alone."
        )
    return []
