"""What a configuration gains or loses against another one on the same questions."""

from tokenprune.evals import stats
from tokenprune.evals.rows import Row


def paired(row: Row, baseline: Row) -> stats.Difference:
    """Return the mean of (row - baseline) over the questions, with its interval.

    Pairing takes the luck of the draw of questions out of the difference, so the interval is narrower than the two
    accuracies' own intervals let one think.
    """
    if row.questions != baseline.questions:
        raise ValueError(
            f"{row.strategy} and {baseline.strategy} at {row.keep_ratio:g}: {row.task} questions "
            f"differ ({row.n} and {baseline.n}); measure both with the same --scenes, --split and --limit"
        )
    return stats.difference(row.points, baseline.points)
