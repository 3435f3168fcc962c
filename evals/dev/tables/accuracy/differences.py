"""A paired difference in one cell of a table."""

from tokenprune.evals.storage.results import TaskResult, compare


def difference(row: TaskResult, other: TaskResult) -> str:
    """Return how much better a row is than another on the same questions, in points, with interval and p."""
    found = compare(row, other)
    low, high = found.interval
    p = "" if found.p is None else f", p = {found.p:.2g}"
    return f"{100 * found.difference:+.1f} [{100 * low:.1f}, {100 * high:.1f}]{p}"
