"""Result rows like those of a run."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from tokenprune.evals.storage.results import QuestionScore, TaskResult


def row(
    strategy: str, position_ids: str, keep_ratio: float, scores: Mapping[str, Sequence[QuestionScore]], **changes: Any
) -> TaskResult:
    numbers = count()  # every question is about a different image
    values: dict[str, Any] = {
        "dataset": "scenes",
        "model": "llava",
        "task": "rec",
        "metric": "Acc@0.5",
        "settings": {} if strategy in ("unpruned", "downsample") else {"keep_ratio": keep_ratio},
        "n_visual": 100.0,
        "n_kept": 100 * keep_ratio,
        "n_mean": 100 * keep_ratio,
        "kv_cache_bytes": 2_000_000,
        "seconds": None,
        "versions": {"torch": "2.9"},
        "device": "cpu",
        "dtype": "bfloat16",
        "questions": "abc",
        "images": {split: [next(numbers) for _ in of_split] for split, of_split in scores.items()},
    }
    values |= {"strategy": strategy, "position_ids": position_ids, "keep_ratio": keep_ratio}
    return TaskResult(**values | changes, scores={split: list(of_split) for split, of_split in scores.items()})
