"""Pruning before the vision tower and between its layers: times, as `tokenprune bench` stored them."""

from tokenprune.evals.bench.figures import figures
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.tables import provenance, towers
from tokenprune.evals.dev.stored import RESULTS


def before() -> str:
    """Return the times of a document whose repeated patches are dropped before the tower."""
    return _timed("page")


def inside() -> str:
    """Return the times of strategies that prune between the tower's layers."""
    return _timed("llava-1.5-0.5b")


def _timed(name: str) -> str:
    record = Record.read(RESULTS / "tower" / f"{name}.json")
    rounds = f"Medians of {len(record.rounds)} rounds, ratios within rounds, with 95 % interval"
    return f"{towers(record, figures(record))}\n\n{rounds}; {provenance(record)}\n"
