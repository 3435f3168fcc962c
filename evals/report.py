"""The results of one or more runs as Markdown: `python -m tokenprune.evals.report --help`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tokenprune.evals.markdown import accuracy_table, difference_table, split_table
from tokenprune.evals.row_files import read
from tokenprune.evals.rows import Row

BEGIN, END = "<!-- tokenprune.evals.report: begin -->\n", "<!-- tokenprune.evals.report: end -->\n"


def report(rows: Sequence[Row], *, baseline: str = "Random") -> str:
    """Return all tables. A set on which no strategy was measured is only in the one of the unpruned model."""
    models = dict.fromkeys(row.model for row in rows)
    if len(models) > 1:
        raise ValueError(f"rows of several models ({', '.join(models)}); report on one at a time")
    parts = []
    for scenes in dict.fromkeys(row.scenes for row in rows):
        of_set = [row for row in rows if row.scenes == scenes]
        if len({row.key for row in of_set}) > 1:
            parts += [
                f"Accuracy on `{scenes}` in per cent, with 95 % interval:",
                accuracy_table(of_set),
                f"Paired differences on `{scenes}` (the same questions under both) in points, with 95 % interval:",
                difference_table(of_set, baseline),
            ]
    parts += ["Unpruned, by split, in per cent with 95 % interval:", split_table(rows), _provenance(rows)]
    return "\n\n".join(parts) + "\n"


def put_into(text: str, tables: str) -> str:
    """Return `text` with `tables` between the two marks in it, in place of whatever was there."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"needs the lines {BEGIN.strip()} and {END.strip()}, each once")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    rows = read(options.results)
    if options.split is not None:
        rows = [row.of_split(options.split) for row in rows]
    tables = report(rows, baseline=options.baseline)
    if options.into is None:
        print(tables, end="")
    else:
        text = options.into.read_text(encoding="utf-8")
        options.into.write_text(put_into(text, tables), encoding="utf-8")


def _provenance(rows: Sequence[Row]) -> str:
    models = dict.fromkeys(
        f"`{row.model}`, {row.dtype} on {row.device}, "
        + ", ".join(f"{name} {version}" for name, version in row.versions.items())
        for row in rows
    )
    return "\n".join(f"({model})" for model in models)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tokenprune.evals.report",
        description="Print what `python -m tokenprune.evals` wrote, as Markdown: accuracy, paired differences of each "
        "strategy's position IDs and against a baseline, and the unpruned model by split.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("results", type=Path, nargs="+", metavar="FILE", help="rows of one model")
    parser.add_argument("--split", help="the questions of one split alone")
    parser.add_argument("--baseline", default="Random", metavar="NAME", help="as the strategy is called in the results")
    parser.add_argument("--into", type=Path, metavar="FILE", help="put the tables between the two marks in this file")
    return parser


if __name__ == "__main__":
    main()
