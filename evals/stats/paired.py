"""What a configuration gains or loses against another one on the same questions."""

from tokenprune.evals.run.results import TaskResult
from tokenprune.evals.stats import intervals as stats


def paired(row: TaskResult, baseline: TaskResult) -> stats.Paired:
    """Compare two rows question by question. A question that could not be asked under either is in neither.

    Pairing takes the luck of the draw of questions out of the difference, so the interval is narrower than the two
    accuracies' own intervals let one think.
    """
    if row.questions != baseline.questions:
        raise ValueError(
            f"{row.strategy} and {baseline.strategy} at {row.keep_ratio:g}: {row.task} questions "
            f"differ ({row.n} and {baseline.n}); measure both with the same --data, --split and --limit"
        )
    both = [
        (own, base, image)
        for (own, image), (base, _) in zip(row.worth, baseline.worth, strict=True)
        if own is not None and base is not None
    ]
    if not both:
        raise ValueError(f"{row.strategy} and {baseline.strategy}: no {row.task} question could be asked under both")
    own, base, images = zip(*both, strict=True)
    return stats.paired(own, base, images)
