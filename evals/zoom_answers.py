"""Answers to questions about needles: read again, and as tables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenprune.evals import stats
from tokenprune.evals.records import field


@dataclass(frozen=True)
class Answer:
    """One answer to one question, asked in one way.

    n_visual: visual tokens encoded for it. n_all: those of the thumbnail and every tile at full resolution. flops,
    flops_all: of encoding and prefill likewise, each tile asked by itself. reached: whether the needle's middle was in
    a tile that was looked at, level by level behind the coarsest. level: the one that was answered from, None for the
    thumbnail.
    """

    id: str
    task: str
    split: str
    way: str
    answer: str
    score: float
    n_visual: int
    n_all: int
    flops: int
    flops_all: int
    reached: Sequence[bool] = ()
    level: int | None = None


def read(path: Path) -> tuple[dict[str, Any], list[Answer]]:
    """The header of a results file, and its answers."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    names = Answer.__dataclass_fields__
    return json.loads(header), [
        Answer(**{name: field(record, name, f"{path}, line {number}") for name in names})
        for number, record in enumerate(records, start=2)
    ]


def tables(answers: Sequence[Answer]) -> str:
    """Markdown: accuracy by the size of the needle, and what it cost; how often each level's tiles held the needle."""
    ways, splits = (list(dict.fromkeys(getattr(a, name) for a in answers)) for name in ("way", "split"))
    lines = [["way", "tokens", "FLOPs", *(f"REC, {split}" for split in splits), "REC, all", "is there a ...?"]]
    for way in ways:
        own = [answer for answer in answers if answer.way == way]
        rec = [answer for answer in own if answer.task == "rec"]
        by_size = [[answer for answer in rec if answer.split == split] for split in splits]
        shares = [_share(own, "n_visual", "n_all"), _share(own, "flops", "flops_all")]
        vqa = [answer for answer in own if answer.task != "rec"]
        lines.append([way, *shares, *map(_accuracy, [*by_size, rec, vqa])])
    recall = [["way", "level", *splits]]
    for way in ways:
        own = [answer for answer in answers if answer.way == way and answer.reached]
        for number in range(max((len(answer.reached) for answer in own), default=0)):
            cells = [
                [float(a.reached[number]) for a in own if a.split == s and len(a.reached) > number] for s in splits
            ]
            recall.append([way, str(number + 1), *map(_mean, cells)])
    return f"{_markdown(lines)}\n\n{_markdown(recall)}\n"


def _share(answers: Sequence[Answer], part: str, whole: str) -> str:
    total = sum(getattr(answer, whole) for answer in answers)
    return f"{100 * sum(getattr(answer, part) for answer in answers) / total:.1f} %"


def _accuracy(answers: Sequence[Answer]) -> str:
    return _mean([answer.score for answer in answers])


def _mean(scores: Sequence[float]) -> str:
    if not scores:
        return "\N{EN DASH}"
    low, high = stats.interval(scores)
    return f"{100 * sum(scores) / len(scores):.0f} [{100 * low:.0f}, {100 * high:.0f}], n = {len(scores)}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    heading, *rows = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([heading, f"| {' | '.join(['---'] * len(lines[0]))} |", *rows])
