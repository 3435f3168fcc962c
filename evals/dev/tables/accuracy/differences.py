"""A paired difference in one cell of a table."""

from tokenprune.evals.dev.measure.directions import points
from tokenprune.evals.storage.results import TaskResult, compare


def difference(row: TaskResult, other: TaskResult) -> str:
    """Return how much better a row is than another on the same questions, in points, with interval and p."""
    found = compare(row, other)
    return points(found) if found.p is None else f"{points(found)}, p = {found.p:.2g}"
