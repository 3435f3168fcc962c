"""Rows of the plan of `dev.measure`, stored in its files."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from helpers.files.rows import row
from tokenprune.evals.dev.measure.plan import Part
from tokenprune.evals.dev.measure.steps import steps
from tokenprune.evals.dev.measure.stored import StoredRows
from tokenprune.evals.run.setups import Setup

#: Questions per split.
N = 20
METRICS = {"rec": "Acc@0.5", "vqa": "accuracy"}


def half(_: Setup, __: str) -> int:
    return N // 2


def store(
    folder: Path,
    part: Part,
    *,
    ratios: Collection[float] | None = None,
    refused: Sequence[str] = (),
    right: Callable[[Setup, str], int] = half,
) -> None:
    """Store the rows of a part of the plan at some of its keep ratios, without strategies that were refused. right:
    returns how many of the N questions of each split a setup gets right in a task."""
    some = part if ratios is None else replace(part, ratios=tuple(ratios))
    for step in steps(some, settings=()):
        stored = StoredRows(folder / f"{step.name}.jsonl", {"data": {task: {"questions": 2 * N} for task in METRICS}})
        stored.refuse({name: "too few" for name in refused if name in step.strategies})
        setups = [one for name in step.strategies if name not in refused for one in step.setups(name)]
        rows = [
            row(
                one.label,
                one.position_ids,
                one.keep_ratio,
                {split: [float(n < right(one, task)) for n in range(N)] for split in ("val", "test")},
                task=task,
                metric=METRICS[task],
                dataset=part.name,
                n_visual=256.0,
                n_mean=256 * one.keep_ratio,
                kv_cache_bytes=round(1e7 * one.keep_ratio),
                dtype="float32",
            )
            for one in setups
            for task in METRICS
        ]
        stored.add(rows)
