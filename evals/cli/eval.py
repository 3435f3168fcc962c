"""`tokenprune eval`: what pruning costs in accuracy, and saves in visual tokens and time."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from shlex import quote

from tokenprune.errors import SettingError
from tokenprune.evals.arguments.fields import add_fields, given
from tokenprune.evals.arguments.settings import add_settings
from tokenprune.evals.run.settings import NONE, EvaluationSettings

EXTRA = "evals"


def add_options(parser: ArgumentParser) -> None:
    add_fields(parser, EvaluationSettings)
    add_settings(parser)


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
    named = {
        "strategies": _named(options.strategies, "--strategy"),
        "baselines": _named(options.baselines, "--baselines"),
    }
    rows = evaluate(**{**given(options, EvaluationSettings), **named}, console=screen)
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
