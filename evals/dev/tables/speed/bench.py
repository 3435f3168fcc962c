"""Speed and memory, as `tokenprune bench` stored them."""

from collections.abc import Sequence

from tokenprune.evals.bench.figures import figures
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.tables import costs, provenance, ratios, summary, throughput
from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.report.table import Table

#: The files that are summarised, one table each, and the keep ratio.
SUMMED, KEEP_RATIO = ("llava-1.5-0.5b_newer", "llava-1.5-0.5b"), 0.25
#: Bytes of memory that the largest batch must fit into.
MEMORY = 24e9


def report(records: Sequence[Record]) -> str:
    """Return all tables of every file."""
    parts: list[str | Table] = []
    for record in records:
        medians = figures(record)
        parts.append(f"### {record.title}\n\n{provenance(record)}.")
        if any("ttft" in row.seconds for row in medians):
            parts += ["Medians:", costs(medians), "Ratios within rounds, with 95 % interval:", ratios(medians)]
        if any("generate" in row.seconds for row in medians):
            parts += ["`generate`:", throughput(record, medians, MEMORY)]
    return "\n\n".join(map(str, parts)) + "\n"


def short(record: Record) -> str:
    """Return one table with the strategies at KEEP_RATIO."""
    return f"{summary(figures(record), KEEP_RATIO)}\n\n({provenance(record)})\n"


def stored() -> str:
    """Return the tables of every stored file."""
    return report([Record.read(path) for path in sorted((RESULTS / "bench").glob("*.json"))])


def summary_of_stored() -> str:
    """Return only the tables of the files in SUMMED."""
    return "\n".join(short(Record.read(RESULTS / "bench" / f"{name}.json")) for name in SUMMED)
