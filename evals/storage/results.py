"""The result of one setup on one task, with the score of every question."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tokenprune.errors import DataError
from tokenprune.evals import stats
from tokenprune.evals.storage.answers import Score, SetupKey

FAILED: Literal["failed"] = "failed"
QuestionScore = Score | Literal["failed"]  # "failed": the question raised an error


@dataclass(frozen=True)
class TaskResult:
    """One setup on the questions of one task.

    questions: a digest of the questions' IDs. Results with the same digest answered the same questions, so their
        `scores` can be compared one by one.
    scores, images: by split ("" if the set has none), in the set's order: each question's score by `metric`, and the
        number of its image. If the metric is defined on groups of questions, each group has one score.
    metrics, intervals: the task's published metrics over all splits, and their 95 % intervals; {} in older files.
    settings: the strategy's settings, {} if nothing is pruned.
    n_visual, n_kept, n_mean: means per question of the visual tokens without pruning, of those that enter the language
        model, and of those that a decoder layer sees on average.
    kv_cache_bytes: the size of the cache tensors after the prefill of the first question alone.
    seconds: mean wall time of `generate` per question, None if it was not measured.
    """

    dataset: str
    model: str
    task: str
    metric: str
    strategy: str
    settings: dict[str, Any]
    position_ids: str
    keep_ratio: float
    n_visual: float
    n_kept: float
    n_mean: float
    kv_cache_bytes: int
    seconds: float | None
    versions: dict[str, str]
    device: str
    dtype: str
    questions: str
    scores: dict[str, list[QuestionScore]]
    images: dict[str, list[int]]
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, stats.Interval] = field(default_factory=dict)

    @property
    def key(self) -> SetupKey:
        return SetupKey(self.strategy, self.position_ids, self.keep_ratio)

    @property
    def scored_images(self) -> list[tuple[float | None, int]]:
        """Every question's score and image, over all splits; the score is None if the question failed."""
        return [
            (None if score == FAILED else score or 0.0, image)
            for split, scores in self.scores.items()
            for score, image in zip(scores, self.images[split], strict=True)
        ]

    @property
    def points(self) -> list[float]:
        """The scores of all questions that did not fail."""
        return [points for points, _ in self.scored_images if points is not None]

    @property
    def n(self) -> int:
        return len(self.points)

    @property
    def accuracy(self) -> float:
        return sum(self.points) / self.n if self.n else float("nan")

    @property
    def interval(self) -> stats.Interval:
        return stats.interval(self.points, [image for points, image in self.scored_images if points is not None])

    @property
    def unparsable(self) -> int:
        return sum(score is None for scores in self.scores.values() for score in scores)

    @property
    def failed(self) -> int:
        return sum(score == FAILED for scores in self.scores.values() for score in scores)

    def of_split(self, split: str) -> "TaskResult":
        """Return the result of one split's questions alone (the visual tokens stay those of all)."""
        if split not in self.scores:
            names = ", ".join(filter(None, self.scores)) or "none. Leave --split out"
            raise DataError(f"{self.task} of {self.dataset}: no split {split!r}; it has {names}")
        scores, images = {split: self.scores[split]}, {split: self.images[split]}
        return replace(
            self, scores=scores, images=images, metrics={}, intervals={}, questions=f"{self.questions} {split}"
        )


def digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]


def compare(result: TaskResult, baseline: TaskResult) -> stats.Paired:
    """Compare two results question by question, without the questions that failed under either.

    Pairing removes the sampling of questions from the difference, so its interval is narrower than the two accuracies'
    own intervals suggest. Raises DataError if no question is left.
    """
    both = answered_by_both(result, baseline)
    if not both:
        raise DataError(
            f"{result.strategy} and {baseline.strategy}: every {result.task} question failed under one of them; repeat "
            f"the command of the run, which asks them again"
        )
    own, base, images = zip(*both, strict=True)
    return stats.paired(own, base, images)


def answered_by_both(result: TaskResult, baseline: TaskResult) -> list[tuple[float, float, int]]:
    """Return both scores and the image of every question that failed under neither. Raises DataError for results on
    different questions."""
    if result.questions != baseline.questions:
        raise DataError(
            f"{result.strategy} and {baseline.strategy} at {result.keep_ratio:g}: {result.task} questions "
            f"differ ({result.n} and {baseline.n}); measure both with the same --data, --split and --limit, and with "
            "--apart-from FILE for every settings file that only one of them used"
        )
    return [
        (own, base, image)
        for (own, image), (base, _) in zip(result.scored_images, baseline.scored_images, strict=True)
        if own is not None and base is not None
    ]


def by_setup(rows: Sequence[TaskResult]) -> dict[SetupKey, dict[str, TaskResult]]:
    """Return the rows of each setup by task, both in order of appearance."""
    groups: dict[SetupKey, dict[str, TaskResult]] = {}
    for row in rows:
        groups.setdefault(row.key, {})[row.task] = row
    return groups
