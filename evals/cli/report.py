"""`tokenprune report`: the results of runs, as tables, a plot and an HTML page."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.arguments.parser import a_path, at_least

EXTRA = "evals"
FOLDER, LOSSES = "report", 4


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "results", nargs="+", type=a_path, metavar="RUN", help="run folders or results files, all of one model"
    )
    parser.add_argument("--split", metavar="NAME", help="only the questions of this split (default: all)")
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="strategy to compare the others with, by its name in the results (default: Random, if it was measured)",
    )
    parser.add_argument(
        "--losses",
        type=at_least(0),
        metavar="N",
        help=f"number of questions to show on the page, worst first, per setup and task (default: {LOSSES})",
    )
    parser.add_argument(
        "--format",
        choices=("markdown", "latex", "csv"),
        default="markdown",
        help="of the printed and written tables; latex needs the package booktabs",
    )
    shared.add_allowed(parser)
    parser.add_argument(
        "--output", type=a_path, metavar="DIR", help=f"folder for tables, plot and page (default: {FOLDER})"
    )
    parser.add_argument(
        "--into",
        type=a_path,
        metavar="FILE",
        help="only replace the tables between the markers in this Markdown file",
    )


def run(options: Namespace) -> None:
    """Compare what `tokenprune eval` measured.

    Prints tables and writes them, together with a plot of accuracy against visual tokens, and an HTML page that also
    shows the questions that pruning gets wrong, with the visual tokens that were kept.
    """
    from tokenprune.errors import SettingError
    from tokenprune.evals.reading.allowed import allowing
    from tokenprune.evals.report.report import fill_document, read, report, write
    from tokenprune.evals.storage.files import check_folder, replace
    from tokenprune.text_files import read_text

    if options.into is not None and (options.output, options.losses, options.format) != (None, None, "markdown"):
        raise SettingError(
            "--output, --losses and --format have no effect with --into, which writes no page. Leave them out."
        )
    folder = options.output or Path(FOLDER)
    if options.into is None:
        check_folder(folder)
    rows = read(options.results)
    if options.split is not None:
        rows = [row.of_split(options.split) for row in rows]
    if options.into is not None:
        text = fill_document(read_text(options.into), rows, baseline=options.baseline)
        replace(options.into.resolve(), text)  # so that a symbolic link stays one
        return
    print(report(rows, baseline=options.baseline, form=options.format))
    with allowing(options.image_root, options.max_image_pixels):
        written = write(
            options.results,
            rows,
            folder,
            baseline=options.baseline,
            n_losses=LOSSES if options.losses is None else options.losses,
            split=options.split,
            form=options.format,
        )
    for path in written:
        print(f"Written to {path}")
