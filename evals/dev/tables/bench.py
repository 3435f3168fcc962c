"""What the bench stored, as Markdown: `python -m tokenprune.evals.dev.tables.bench --help`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tokenprune.evals.bench.figures import figures
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.tables import costs, provenance, ratios, summary
from tokenprune.evals.bench.throughput import throughput
from tokenprune.evals.report import markers as marked
from tokenprune.evals.report.tables import Table

RESULTS = Path(__file__).resolve().parents[2] / "results" / "bench"
#: What marks in a document name.
TABLES, SUMMARY = "tokenprune.evals.dev.tables.bench", "tokenprune.evals.dev.tables.bench, summary"
#: The file that the summary is of, and the keep ratio.
SUMMED, KEEP_RATIO = "llava-1.5-0.5b", 0.25
#: Bytes that the largest batch is to fit into.
MEMORY = 24e9


def report(records: Sequence[Record]) -> str:
    """Return all tables of every file, one after the other."""
    parts: list[str | Table] = []
    for record in records:
        found = figures(record)
        parts.append(f"### {record.title}\n\n{provenance(record)}.")
        if any("ttft" in one.seconds for one in found):
            parts += ["Medians:", costs(found), "Ratios within rounds, with 95 % interval:", ratios(found)]
        if any("generate" in one.seconds for one in found):
            parts += ["`generate`:", throughput(record, found, MEMORY)]
    return "\n\n".join(map(str, parts)) + "\n"


def short(record: Record) -> str:
    """Return one table of the strategies at KEEP_RATIO."""
    return f"{summary(figures(record), KEEP_RATIO)}\n\n({provenance(record)})\n"


def put_into(text: str, folder: Path = RESULTS) -> str:
    """Return a document with the tables of the files in `folder` that it has marks for."""
    makes = {
        TABLES: lambda: report([Record.read(path) for path in sorted(folder.glob("*.json"))]),
        SUMMARY: lambda: short(Record.read(folder / f"{SUMMED}.json")),
    }
    for name, make in makes.items():
        if marked.marks(name)[0] in text:
            text = marked.put_into(text, name, make())
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tokenprune.evals.dev.tables.bench", description=__doc__)
    parser.add_argument("documents", nargs="+", type=Path, metavar="FILE", help="put the tables between their marks")
    for path in parser.parse_args(arguments).documents:
        path.write_text(put_into(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
