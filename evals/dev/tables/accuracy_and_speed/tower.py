"""Pruning before the vision tower and between its layers: time, as `tokenprune bench` stored it, and accuracy."""

from tokenprune.evals.bench.figures import figures
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.tables import provenance, towers
from tokenprune.evals.dev.tables import RESULTS
from tokenprune.evals.report.tables import accuracy_table
from tokenprune.evals.storage.results_io import read


def before() -> str:
    """Return the times of a document whose repeated patches are dropped before the tower."""
    return _timed("page")


def inside() -> str:
    """Return the times of what prunes between the tower's layers."""
    return _timed("llava-1.5-0.5b")


def accuracy() -> str:
    return f"Accuracy in per cent, with 95 % interval:\n\n{accuracy_table(read([RESULTS / 'tower.jsonl']))}\n"


def _timed(name: str) -> str:
    record = Record.read(RESULTS / "tower" / f"{name}.json")
    rounds = f"Medians of {len(record.rounds)} rounds, ratios within rounds, with 95 % interval"
    return f"{towers(record, figures(record))}\n\n{rounds}; {provenance(record)}\n"
