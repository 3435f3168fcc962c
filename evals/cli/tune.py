"""`tokenprune tune`: the cheapest setting whose loss of accuracy is bounded."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from tokenprune.evals.cli.arguments import options as shared
from tokenprune.evals.cli.arguments.parser import a_path, at_least, fraction, number
from tokenprune.evals.defaults import SEARCHED_KEEP_RATIOS

EXTRA = "optimize"


def add_options(parser: ArgumentParser) -> None:
    shared.add_model(parser)
    parser.add_argument(
        "--max-loss",
        type=number,
        default=1.0,
        metavar="POINTS",
        help="maximum loss in points of accuracy, with 95 %% confidence; with --no-labels, in points of what --compare "
        "measures",
    )
    shared.add_questions(parser, "tune on")
    parser.add_argument(
        "--no-labels",
        action="store_false",
        dest="labels",
        help="compare with the unpruned model's own answers instead of the labels",
    )
    parser.add_argument(
        "--compare",
        choices=("answers", "first-token"),
        help="with --no-labels: compare answers, or the distributions of their first tokens, for which a point is an "
        "average total variation distance of 0.01 (default: answers)",
    )
    shared.add_strategies(parser, [], " (default: all that need no calibration)")
    parser.add_argument(
        "--keep-ratio",
        nargs=2,
        type=fraction,
        default=list(SEARCHED_KEEP_RATIOS),
        metavar=("LOWEST", "HIGHEST"),
        help="range of the fraction of visual tokens to keep",
    )
    parser.add_argument(
        "--cost",
        choices=("flops", "kv", "ttft"),
        default="flops",
        help="what to minimise: operations of the prefill, bytes of KV cache, or time to first token on this machine",
    )
    parser.add_argument("--servable", action="store_true", help="try only what `tokenprune serve` can run in vLLM")
    parser.add_argument(
        "--generations", type=at_least(1), default=3, metavar="N", help="number of times to propose new settings"
    )
    parser.add_argument(
        "--size", type=at_least(1), default=24, metavar="N", help="number of settings to propose each time"
    )
    shared.add_seed(parser)
    shared.add_dtype(parser)
    shared.add_batch_tokens(parser)
    parser.add_argument(
        "--output",
        type=a_path,
        default=Path("runs/tuned"),
        metavar="DIR",
        help="folder for settings file, page, plot and all answers; the same command resumes the search",
    )


def run(options: Namespace) -> None:
    """Find the cheapest setting that loses at most a few points of accuracy.

    Searches strategies, keep ratios, layers, cells and stages on half of the questions, and tests the best settings on
    the other half. The --data folder holds a published set, or your own `questions.jsonl` with lines like

      {"image": "1.jpg", "question": "What is in the cup?", "answer": "tea"}

    An interrupted search resumes with the same command. It writes a settings file that everything else accepts:

      tokenprune serve --model PATH --strategy runs/tuned/settings.json

    If no setting was shown to stay within the loss, it writes the most promising one to unproven.json and exits with
    status 1. Everything else refuses that file, unless it is written runs/tuned/unproven.json:unproven.
    """
    from tokenprune.evals.cli.output import console
    from tokenprune.evals.tune.space import STRATEGIES
    from tokenprune.evals.tune.tune import tune

    screen = console(200)
    tuned = tune(
        options.model,
        data=options.data,
        output=options.output,
        max_loss=options.max_loss,
        strategies=options.strategy or STRATEGIES,
        keep_ratios=tuple(options.keep_ratio),
        cost=options.cost,
        labels=options.labels,
        compare=options.compare,
        servable=options.servable,
        tasks=options.tasks,
        split=options.split,
        limit=options.limit,
        generations=options.generations,
        size=options.size,
        seed=options.seed,
        dtype=options.dtype,
        batch_tokens=options.batch_tokens,
        image_roots=options.image_root,
        max_image_pixels=options.max_image_pixels,
        console=screen,
    )
    screen.print(tuned.verdict)
    if tuned.passed:
        screen.print(f'Written to {tuned.settings}: tokenprune.patch(model, "{tuned.settings}").')
    screen.print(f"Page: {tuned.page}.")
    if not tuned.passed:
        sys.exit(1)
