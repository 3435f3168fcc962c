"""The log of a run, one line per draw, and its summary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch
import transformers

from tokenprune.evals.storage.files import append, lock_for_appending

#: The result of each part of the draws: how many had each outcome, and the largest difference.
Counts = dict[str, dict[str, int | float]]


@dataclass
class Log:
    """The draws so far, as lines of JSON. New ones are appended to `file`, or only kept in memory if it is None."""

    lines: list[dict[str, Any]]
    file: FileIO | None = None

    @classmethod
    @contextmanager
    def opened(cls, path: Path | None, seed: int) -> Iterator[Log]:
        """Continue the file at `path`. Raises ValueError for another seed, and SettingError if another run writes
        it."""
        if path is None:
            yield cls([])
            return
        with lock_for_appending(path, "another run is writing it") as file:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if any((line["seed"], line["index"]) != (seed, number) for number, line in enumerate(lines)):
                raise ValueError(f"{path} is not a run with seed {seed}. Type --seed or --output of the run to resume.")
            yield cls(lines, file)

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self.file is not None:
            append(self.file, json.dumps(line) + "\n")


@dataclass
class Summary:
    """Counts by outcome, and the largest difference among the draws that were compared, in all and by part."""

    seed: int
    draws: int
    outcomes: dict[str, int]
    worst: float
    seconds: float
    versions: dict[str, str]
    families: Counts
    strategies: Counts
    modes: Counts
    position_ids: Counts
    padding: Counts
    rows: Counts
    refused: dict[str, int]
    upstream: dict[str, int]

    def text(self) -> str:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items())
        return f"{self.draws} draws: {outcomes}; worst difference {self.worst:.1e}; {self.seconds:.0f} s"

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def summary(lines: Sequence[dict[str, Any]], seed: int) -> Summary:
    def reasons(outcome: str) -> dict[str, int]:
        return dict(Counter(line["reason"] for line in lines if line["outcome"] == outcome).most_common())

    return Summary(
        seed,
        len(lines),
        dict(Counter(line["outcome"] for line in lines).most_common()),
        worst(lines),
        float(round(sum(line["seconds"] for line in lines))),
        {"torch": str(torch.__version__), "transformers": transformers.__version__},
        by(lines, ["family"]),
        by(lines, ["strategy"]),
        by([line for line in lines if line["kind"]], ["kind", "cache", "form"]),
        by(lines, ["position_ids"]),
        by([line for line in lines if line["kind"]], ["padding"]),
        by([line for line in lines if line["kind"]], ["rows"]),
        reasons("refused"),
        reasons("upstream"),
    )


def worst(lines: Sequence[dict[str, Any]]) -> float:
    return max((line["worst"] for line in lines if line["outcome"] == "ok"), default=0.0)


def by(lines: Sequence[dict[str, Any]], keys: Sequence[str]) -> Counts:
    """Return the counts of every outcome, and the largest difference, for each combination of these keys."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        parts.setdefault(", ".join(str(line[key]) for key in keys), []).append(line)
    return {
        name: {**Counter(line["outcome"] for line in part), "worst": worst(part)}
        for name, part in sorted(parts.items())
    }
