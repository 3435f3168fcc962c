"""`tokenprune report`: what runs found, as Markdown, plots and a page."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[
        list[Path], typer.Argument(help="Folders of runs of one model, or files of rows.", metavar="RUN...")
    ],
    split: Annotated[str | None, typer.Option(help="The questions of one split alone.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="What strategies are compared with, as the results call it.",
            metavar="NAME",
            show_default="Random, where it was measured",
        ),
    ] = None,
    losses: Annotated[
        int, typer.Option(min=0, help="Worst questions of each configuration and task that the page shows.")
    ] = 4,
    output: Annotated[Path, typer.Option(help="Where page, plots and Markdown go.", metavar="DIR")] = Path("report"),
    into: Annotated[
        Path | None,
        typer.Option(help="Nothing but put the tables that this file has marks for between them.", metavar="FILE"),
    ] = None,
) -> None:
    """Compare what [bold]tokenprune eval[/bold] measured.

    Prints Markdown, and writes it with plots of accuracy against visual tokens and against time, and one HTML page that
    also shows the questions that pruning loses, with the visual tokens that were kept.
    """
    from tokenprune.evals.report.report import put_into, read, write
    from tokenprune.evals.report.report import report as tables_of

    rows = read(results)
    if split is not None:
        rows = [row.of_split(split) for row in rows]
    if into is not None:
        into.write_text(put_into(into.read_text(encoding="utf-8"), rows, baseline=baseline), encoding="utf-8")
        return
    print(tables_of(rows, baseline=baseline))
    for path in write(results, rows, output, baseline=baseline, n_losses=losses):
        print(f"Written to {path}")
