"""The parts of the plan, split into steps: a step is what is asked at one keep ratio, and has its own file of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenprune.evals.dev.measure.directions import EQUAL
from tokenprune.evals.dev.measure.plan import AT_EQUAL_CACHE, ORIGINAL, PRUNED, RATIOS, Part, is_label_inside
from tokenprune.evals.run.setups import DOWNSAMPLE, Setup, make_setups
from tokenprune.evals.run.setups import UNPRUNED as NOT_PRUNED
from tokenprune.evals.storage.results import TaskResult


@dataclass(frozen=True)
class Step:
    """Strategies and baselines of a part at a keep ratio.

    strategies: as `tokenprune eval` reads them; `unpruned` alone for the unpruned model.
    """

    part: Part
    ratio: float
    strategies: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the step's file of rows. Parts with all questions have other names than those with a few."""
        if not self.part.ratios:
            return f"{NOT_PRUNED}/{self.part.name}"
        return f"{self.part.name}/{NOT_PRUNED if self.strategies == (NOT_PRUNED,) else f'{100 * self.ratio:g}'}"

    def setups(self, strategy: str) -> list[Setup]:
        """Return a strategy's setups, one per kind of position IDs. Raises TokenPruneError if it cannot be made."""
        asked, baselines = asked_as(strategy)
        return make_setups(asked, [self.ratio], self.part.ids(strategy), baselines)


def steps(part: Part, settings: Sequence[Path]) -> Iterator[Step]:
    """Yield all steps of a part, the unpruned model first. settings: settings files."""
    yield Step(part, 1.0, (NOT_PRUNED,))
    for ratio in part.ratios:
        files = [str(file) for file in settings if part.settings and _ratio_of(file) == ratio]
        yield Step(part, ratio, ("random", DOWNSAMPLE, *part.strategies, *files))


def asked_as(strategy: str) -> tuple[list[str], list[str]]:
    """Return a strategy of a step as the arguments `strategies` and `baselines` of `evaluate`."""
    return ([], [strategy]) if strategy == NOT_PRUNED else ([strategy], [])


def equal_cache(rows: Sequence[TaskResult]) -> Part | None:
    """Return the part that measures strategies before the language model at the KV cache sizes of the strategies inside
    it in `rows`; None if the planned keep ratios already give caches of about those sizes."""
    shares = {round(row.n_mean / row.n_visual, 3) for row in rows if is_label_inside(row.strategy)}
    ratios: list[float] = []
    for share in sorted(shares, reverse=True):
        if share < 1 and all(abs(share / ratio - 1) > EQUAL / 2 for ratio in (*RATIOS, *ratios)):
            ratios.append(share)
    return (
        replace(PRUNED[0], ratios=tuple(ratios), strategies=AT_EQUAL_CACHE, position_ids=ORIGINAL) if ratios else None
    )


def _ratio_of(file: Path) -> float | None:
    return json.loads(file.read_text(encoding="utf-8")).get("settings", {}).get("keep_ratio")
