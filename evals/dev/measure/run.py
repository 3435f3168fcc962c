"""Measure parts of the plan, one strategy after the other; what is answered already is not asked again."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

import tokenprune
from tokenprune.evals.dev.measure.plan import AT_EQUAL_CACHE, ORIGINAL, PRUNED, RATIOS, Part
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.questions import limit_questions, load_questions
from tokenprune.evals.run.results import TaskResult
from tokenprune.evals.run.results_io import to_line
from tokenprune.evals.run.run_folder import RunFolder
from tokenprune.evals.run.setups import DOWNSAMPLE
from tokenprune.evals.run.setups import UNPRUNED as NOT_PRUNED

TIMED = 8  # questions of each task that time an answer


@dataclass(frozen=True)
class Step:
    """A strategy or baseline of a part at a keep ratio, which has a run folder of its own.

    ratio, strategy: None for the unpruned model.
    """

    part: Part
    ratio: float | None
    strategy: str | None

    @property
    def folder(self) -> str:
        if not self.part.ratios:
            return f"{NOT_PRUNED}/{self.part.name}"  # of all questions, where pruned parts have fewer
        if self.strategy is None:
            return f"{self.part.name}/{NOT_PRUNED}"
        strategy = Path(self.strategy).stem if self.strategy.endswith(".json") else self.strategy
        name = re.sub(r"[^\w=.-]+", "_", strategy)
        return f"{self.part.name}/{100 * (self.ratio or 1):g}/{name}"

    @property
    def n_setups(self) -> int:
        """How many answers a question gets: nothing has compact position IDs that drops no tokens."""
        return 1 if self.strategy in (None, DOWNSAMPLE) else len(self.part.position_ids)


@dataclass
class Measuring:
    """model: a loaded model and its processor. data: the folder of the sets. output: the folder of all runs.

    questions: most questions of each task, None for what the plan says.
    """

    model: tuple[Any, Any]
    data: Path
    output: Path
    settings: Sequence[Path]
    dtype: str
    questions: int | None = None

    def steps(self, part: Part) -> Iterator[Step]:
        """Yield all steps of a part, the unpruned model first."""
        yield Step(part, None, None)
        for ratio in part.ratios:
            files = [str(file) for file in self.settings if part.settings and _ratio_of(file) == ratio]
            for strategy in ("random", DOWNSAMPLE, *part.strategies, *files):
                yield Step(part, ratio, strategy)

    def asked(self, part: Part) -> int:
        """Return how many questions one setup of a part is asked."""
        questions = load_questions(self.data / part.data, None, style=STYLES["bundled"])
        return len(limit_questions(questions, self._limit(part)))

    def missing(self, parts: Sequence[Part]) -> int:
        """Return how many answers are still to be given, by strategies not yet refused."""
        total = 0
        for part in parts:
            steps = [s for s in self.steps(part) if not (self.output / f"{s.folder}.refused").exists()]
            done = sum(len(RunFolder(self.output / step.folder).answers()) for step in steps)
            total += self.asked(part) * sum(step.n_setups for step in steps) - done
        return total

    def seconds_an_answer(self, part: Part) -> float:
        """Ask the unpruned model a few questions, and return the wall time of one with its image's decoding."""
        with tempfile.TemporaryDirectory() as folder:
            self._evaluate(Step(part, None, None), Path(folder) / "warm", limit=1)
            began = time.time()
            rows = self._evaluate(Step(part, None, None), Path(folder) / "timed", limit=TIMED)
        return (time.time() - began) / sum(row.n for row in rows)

    def measure(self, part: Part, console: Console) -> list[TaskResult]:
        """Ask what is missing of a part, and return its rows. What cannot be measured is said and left out."""
        rows: list[TaskResult] = []
        for step in self.steps(part):
            folder, name = self.output / step.folder, step.strategy or NOT_PRUNED
            refusal = folder.with_suffix(f"{folder.suffix}.refused")
            if not refusal.exists():
                is_new = not folder.exists()
                try:
                    rows += self._evaluate(step, folder, limit=self._limit(part))
                except tokenprune.TokenPruneError as error:
                    if not is_new:
                        raise
                    shutil.rmtree(folder, ignore_errors=True)
                    refusal.parent.mkdir(parents=True, exist_ok=True)
                    refusal.write_text(f"{error}\n", encoding="utf-8")
            said = f"left out: {refusal.read_text(encoding='utf-8').strip()}" if refusal.exists() else "measured"
            console.print(f"{step.folder}: {name} is {said}", soft_wrap=True, markup=False)
        return rows

    def _limit(self, part: Part) -> int | None:
        limits = [limit for limit in (part.questions, self.questions) if limit is not None]
        return min(limits, default=None)

    def _evaluate(self, step: Step, folder: Path, *, limit: int | None) -> list[TaskResult]:
        return evaluate(
            self.model,
            output=folder,
            strategies=[] if step.strategy is None else [step.strategy],
            keep_ratios=[1.0 if step.ratio is None else step.ratio],
            position_ids=step.part.position_ids,
            baselines=[NOT_PRUNED] if step.ratio is None else [],
            data=self.data / step.part.data,
            limit=limit,
            dtype=self.dtype,
            image_size=step.part.image_size,
            console=Console(quiet=True),
        )


def equal_cache(rows: Sequence[TaskResult], inside: Sequence[str]) -> Part | None:
    """Return the part that asks what prunes before the language model at the caches that `rows` of strategies inside it
    have; None if every such keep ratio is measured anyway."""
    shares = {round(row.n_mean / row.n_visual, 3) for row in rows if row.strategy.split()[0] in inside}
    ratios = sorted((share for share in shares if 0 < share < 1 and share not in RATIOS), reverse=True)
    if not ratios:
        return None
    return Part("scenes", None, tuple(ratios), AT_EQUAL_CACHE, ORIGINAL, PRUNED[0].questions)


def write_rows(rows: Sequence[TaskResult], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text("".join(f"{to_line(row)}\n" for row in rows), encoding="utf-8")
    shutil.move(unfinished, file)


def _ratio_of(file: Path) -> float | None:
    return json.loads(file.read_text(encoding="utf-8")).get("settings", {}).get("keep_ratio")
