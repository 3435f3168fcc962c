"""Answers to questions about needles, stored as lines of a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenprune.evals.reading.fields import field
from tokenprune.evals.reading.records import line_records


@dataclass(frozen=True)
class Answer:
    """One answer to one question, obtained in one way.

    n_visual: visual tokens encoded for it. n_all: those of the thumbnail and every tile at full resolution. flops,
    flops_all: the operations of encoding and prefill for the same two, each tile processed separately. reached: for
    each level below the coarsest, whether the needle's middle was in an examined tile. found: whether it is in the view
    that was answered from. level: the level of that view, None for the thumbnail.
    """

    id: str
    task: str
    split: str
    image: str
    way: str
    answer: str
    score: float
    n_visual: int
    n_all: int
    flops: int
    flops_all: int
    reached: Sequence[bool] = ()
    found: bool | None = None
    level: int | None = None


def read(path: Path) -> tuple[dict[str, Any], list[Answer]]:
    """Return the header and the answers of a results file."""
    header, *records = line_records(path)
    names = Answer.__dataclass_fields__
    return header.content, [
        Answer(**{name: field(record.content, name, record.where) for name in names}) for record in records
    ]
