"""The log of a run, one line per draw, and its summary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from tokenprune.evals.storage.files import append, lock_for_appending


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


def counts(lines: Sequence[dict[str, Any]]) -> Counter[str]:
    """Return how many draws had each outcome."""
    return Counter(line["outcome"] for line in lines)


def summary(lines: Sequence[dict[str, Any]]) -> str:
    """Return one line: the counts by outcome, the largest difference among the draws that were compared, and their
    time."""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts(lines).most_common())
    worst = max((line["worst"] for line in lines if line["outcome"] == "ok"), default=0.0)
    seconds = sum(line["seconds"] for line in lines)
    return f"{len(lines)} draws: {outcomes}; worst difference {worst:.1e}; {seconds:.0f} s"
