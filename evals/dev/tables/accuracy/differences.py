"""A paired difference in one cell of a table."""

from tokenprune.evals.dev.measure.directions import points
from tokenprune.evals.storage.results import TaskResult, compare


def difference(row: TaskResult, other: TaskResult) -> str:
    """Return how much better a row is than another on the same questions, in points, with interval and p."""
    paired = compare(row, other)
    return points(paired) if paired.p is None else f"{points(paired)}, p = {paired.p:.2g}"
