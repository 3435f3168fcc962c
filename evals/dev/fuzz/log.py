"""The file of a run, one line per draw, and what its lines add up to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

#: What a part of the draws came to: how many had each outcome, and the worst difference.
Counts = dict[str, dict[str, int | float]]


class Log:
    """The draws so far. A line that a killed process left unfinished is cut off.

    Raises ValueError for a file of another seed.
    """

    def __init__(self, path: Path | None, seed: int) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes() if path.exists() else b""
        whole = whole[: whole.rfind(b"\n") + 1]
        self.lines = [json.loads(line) for line in whole.splitlines()]
        if any((line["seed"], line["index"]) != (seed, number) for number, line in enumerate(self.lines)):
            raise ValueError(f"{path} is not a run with seed {seed}. Type --seed or --output of the run to resume.")
        with path.open("wb") as file:
            file.write(whole)

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


@dataclass
class Summary:
    """Counts by outcome, and the worst difference of all draws that were compared, whole and by part."""

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
    """Counts of every outcome, and the worst difference, by what these keys say."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        parts.setdefault(", ".join(str(line[key]) for key in keys), []).append(line)
    return {
        name: {**Counter(line["outcome"] for line in part), "worst": worst(part)}
        for name, part in sorted(parts.items())
    }
