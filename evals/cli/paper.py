"""`tokenprune paper`: a published table, measured again."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.arguments.parser import a_path, not_empty

EXTRA = "evals"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "protocol",
        nargs="?",
        type=not_empty,
        metavar="NAME",
        help="protocol, by name or as your own FILE.toml (default: list them)",
    )
    parser.add_argument(
        "--model", type=not_empty, metavar="PATH", help="model folder or Hugging Face name (default: the protocol's)"
    )
    parser.add_argument(
        "--data", type=a_path, metavar="DIR", help="folder with one folder for each task (default: sets)"
    )
    shared.add_option(parser, "tasks", {"nargs": "+", "metavar": "NAME", "help": "only these tasks (default: all)"})
    shared.add_option(parser, "limit", shared.LIMIT)
    shared.add_dtype(parser)
    shared.add_option(parser, "batch_tokens", shared.batch_tokens())
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="load nothing: say what is missing, how many answers there are to ask, and how long they take",
    )
    parser.add_argument(
        "--output",
        type=a_path,
        metavar="DIR",
        help="folder for answers and tables; the same command resumes the run (default: runs/paper/NAME, and "
        "runs/paper/NAME-N with --limit N)",
    )


def run(options: Namespace) -> None:
    """Measure a published table again, and compare.

    Without NAME, lists the protocols: which table, which model, which numbers. With it, asks every question of the
    table's sets under every strategy and budget of the table, and prints measured beside published numbers, with 95 %
    intervals. An interrupted run resumes with the same command.

      tokenprune paper restore-llava-1.5 --data sets --dry-run
      tokenprune paper restore-llava-1.5 --data sets --limit 500

    A protocol is a short TOML file, and you can write your own.
    """
    from tokenprune.errors import SettingError
    from tokenprune.evals.cli.output import console
    from tokenprune.evals.papers import protocol, readiness
    from tokenprune.evals.papers.comparing import Comparison
    from tokenprune.evals.papers.measuring import PaperRun
    from tokenprune.evals.report.table import FORMATS, Table, joined
    from tokenprune.evals.run.processes import processes
    from tokenprune.evals.storage.files import check_folder

    screen = console(1000)
    if options.protocol is None:
        known = [protocol.read(name) for name in protocol.names()]
        lines = [[read.name, read.title, Path(read.model).name, read.source] for read in known]
        screen.print(str(Table(["name", "table", "model", "source"], lines)))
        return
    read = protocol.read(options.protocol)
    limited = "" if options.limit is None else f"-{options.limit}"
    planned = PaperRun(
        read,
        options.model or read.model,
        options.data or read.data or Path("sets"),
        options.output or Path("runs/paper") / f"{read.name}{limited}",
        options.tasks,
        options.limit,
    )
    if options.dry_run:
        text, ready = readiness.told(planned)
        screen.print(text)
        if not ready:
            sys.exit(1)
        return
    if not planned.columns:
        raise SettingError(f"{read.name}: no column can be measured")
    check_folder(planned.output)
    comparison = Comparison(read, planned.measure(options.dtype, options.batch_tokens, screen))
    if not processes().is_first:
        return
    parts = [
        f"{read.title} ({read.source}). Measured with its 95 % interval, then the published number in brackets: = is "
        "within the interval, and an arrow says where the measured one is.",
        comparison.summary(),
        *(f"{column.name}: {column.unavailable}" for column in read.columns if column.unavailable),
    ]
    screen.print(joined(parts))
    for form, ending in FORMATS.items():
        table = planned.output / f"table{ending}"
        table.write_text(joined([*parts, comparison.details()] if form == "markdown" else parts[1:2], form))
    details = planned.output / "cells.csv"
    details.write_text(comparison.details().text("csv") + "\n")
    screen.print(f"Written to {planned.output}: table.md, table.tex, table.csv; every difference in {details.name}")
