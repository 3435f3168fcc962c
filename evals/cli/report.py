"""`tokenprune report`: what runs found, as Markdown, plots and a page."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[
        list[Path], typer.Argument(help="Folders of runs of one model, or files of rows.", metavar="RUN...")
    ],
    split: Annotated[str | None, typer.Option(help="The questions of one split alone.")] = None,
    baseline: Annotated[str, typer.Option(help="As the strategy is called in the results.", metavar="NAME")] = "Random",
    into: Annotated[
        Path | None, typer.Option(help="Put the tables between the two marks in this file.", metavar="FILE")
    ] = None,
) -> None:
    """Compare what [bold]tokenprune eval[/bold] measured."""
    from tokenprune.evals.report import put_into, read
    from tokenprune.evals.report import report as tables_of

    rows = read(results)
    if split is not None:
        rows = [row.of_split(split) for row in rows]
    tables = tables_of(rows, baseline=baseline)
    if into is None:
        print(tables, end="")
    else:
        into.write_text(put_into(into.read_text(encoding="utf-8"), tables), encoding="utf-8")
