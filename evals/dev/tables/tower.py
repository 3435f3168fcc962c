"""Pruning before the vision tower and between its layers: time, as `tokenprune bench` stored it, and accuracy."""

from tokenprune.evals.bench.figures import figures
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.tables import provenance, towers
from tokenprune.evals.dev.tables import RESULTS
from tokenprune.evals.report.tables import accuracy_table
from tokenprune.evals.run.results_io import read


def before() -> str:
    """Return the times of documents whose repeated patches are dropped before the tower."""
    return _timed("page", "table", "screen")


def inside() -> str:
    """Return the times of what prunes between the tower's layers."""
    return _timed("llava-1.5-0.5b")


def accuracy() -> str:
    return f"Accuracy in per cent, with 95 % interval:\n\n{accuracy_table(read([RESULTS / 'tower.jsonl']))}\n"


def _timed(*names: str) -> str:
    records = [Record.read(RESULTS / "tower" / f"{name}.json") for name in names]
    table = towers([(record, figures(record)) for record in records])
    about = "; ".join(dict.fromkeys(map(provenance, records)))
    return f"{table}\n\nMedians of ratios within rounds, with 95 % interval; {about}\n"
