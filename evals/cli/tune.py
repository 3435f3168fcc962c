"""`tokenprune tune`: the cheapest setting whose loss of accuracy is bounded."""

import sys
from argparse import ArgumentParser, Namespace

from tokenprune.evals.arguments.fields import add_fields, given
from tokenprune.evals.tune.settings import TuningSettings

EXTRA = "optimize"


def add_options(parser: ArgumentParser) -> None:
    add_fields(parser, TuningSettings)


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
    from tokenprune.evals.tune.tune import tune

    screen = console(200)
    tuned = tune(**given(options, TuningSettings), console=screen)
    screen.print(tuned.verdict)
    if tuned.passed:
        screen.print(f'Written to {tuned.settings}: tokenprune.patch(model, "{tuned.settings}").')
    screen.print(f"Page: {tuned.page}.")
    if not tuned.passed:
        sys.exit(1)
