"""A row: one configuration on the questions of one task, with the score of every question."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tokenprune.evals import stats

Score = float | None  # 0 to 1; None where the answer could not be read, which is worth 0


class Key(NamedTuple):
    """What tells one configuration from another one."""

    strategy: str
    position_ids: str
    keep_ratio: float


@dataclass(frozen=True)
class Row:
    """One configuration on the questions of one task of one set. Means of visual tokens are per picture.

    `questions` is a digest of the questions' IDs: rows that have the same one answered the same questions, so their
    `scores` can be compared one by one. `scores` are by split ("" where the set has none), in the set's order.
    `settings` are the strategy's, {} where nothing is pruned. `kv_cache_bytes` is the size of the cache tensors after
    the prefill of the first question alone.
    """

    scenes: str
    model: str
    task: str
    metric: str
    strategy: str
    settings: dict[str, Any]
    position_ids: str
    keep_ratio: float
    n_visual: float
    n_kept: float
    kv_cache_bytes: int
    versions: dict[str, str]
    device: str
    dtype: str
    questions: str
    scores: dict[str, list[Score]]

    @property
    def key(self) -> Key:
        return Key(self.strategy, self.position_ids, self.keep_ratio)

    @property
    def points(self) -> list[float]:
        """What every question is worth, over all splits."""
        return [score or 0.0 for scores in self.scores.values() for score in scores]

    @property
    def n(self) -> int:
        return len(self.points)

    @property
    def accuracy(self) -> float:
        return sum(self.points) / self.n

    @property
    def interval(self) -> stats.Interval:
        return stats.interval(self.points)

    @property
    def unparsable(self) -> int:
        return sum(score is None for scores in self.scores.values() for score in scores)

    def of_split(self, split: str) -> "Row":
        """Return the row as if one split's questions alone had been asked (the visual tokens stay those of all)."""
        if split not in self.scores:
            raise ValueError(f"{self.task} of {self.scenes}: no split {split!r}; it has {', '.join(self.scores)}")
        return replace(self, scores={split: self.scores[split]}, questions=f"{self.questions} {split}")


def digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]


def by_configuration(rows: Sequence[Row]) -> dict[Key, dict[str, Row]]:
    """Return the rows of each configuration by task, both in the order in which they come."""
    groups: dict[Key, dict[str, Row]] = {}
    for row in rows:
        groups.setdefault(row.key, {})[row.task] = row
    return groups
