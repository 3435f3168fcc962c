"""The model's answer to one question under one setup, with its cost. Stored as one line of JSON."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from tokenprune.errors import DataError
from tokenprune.evals.reading.fields import check_types, field
from tokenprune.evals.tasks.base.question import Question
from tokenprune.text_files import parse_json
from tokenprune.tokens import Layout

Score = float | None  # 0 to 1; None if the answer could not be read, which counts as 0


class SetupKey(NamedTuple):
    """What identifies a setup."""

    strategy: str
    position_ids: str
    keep_ratio: float

    def __str__(self) -> str:
        return f"{self.strategy}, keep ratio {self.keep_ratio:g}, position IDs {self.position_ids}"


class AnswerKey(NamedTuple):
    """What identifies an answer: one question under one setup."""

    task: str
    id: str
    key: SetupKey

    @classmethod
    def of(cls, question: Question, setup: SetupKey) -> "AnswerKey":
        return cls(question.task, question.id, setup)


@dataclass(frozen=True)
class KeptTokens:
    """The visual tokens of one image that entered the language model, newline tokens left out: one bit per token of its
    `grids` (t, h, w)."""

    grids: tuple[tuple[int, int, int], ...]
    bits: str

    @classmethod
    def of(cls, kept: Sequence[int] | np.ndarray, layout: Layout) -> "KeptTokens":
        mask = np.zeros(layout.n_visual, dtype=bool)
        mask[kept] = True
        real = ~layout.newline_mask().numpy()
        rasters = layout.coordinates()[:, 0].numpy()[real]
        sizes = np.bincount(rasters, minlength=len(layout.grids)).tolist()
        grids = tuple((t, h, size // (t * h)) for (t, h, _), size in zip(layout.grids, sizes, strict=True) if size)
        return cls(grids, base64.b64encode(np.packbits(mask[real]).tobytes()).decode())

    def mask(self, n_visual: int) -> np.ndarray:
        packed = np.frombuffer(base64.b64decode(self.bits), dtype=np.uint8)
        return np.unpackbits(packed, count=n_visual).astype(bool)

    def dropped(self) -> list[np.ndarray]:
        """Return a mask (t, h, w) of the dropped tokens of each grid. Grids of one token, such as the CLS token of a
        frame, are left out."""
        sizes = [t * h * w for t, h, w in self.grids]
        parts = np.split(~self.mask(sum(sizes)), np.cumsum(sizes)[:-1])
        return [part.reshape(grid) for part, grid in zip(parts, self.grids, strict=True) if part.size > 1]


@dataclass(frozen=True)
class Answer:
    """The answer to one question under one setup.

    n_visual, n_kept, n_mean: the visual tokens without pruning, those that enter the language model, and those that a
        decoder layer sees on average; n_mean is below n_kept if layers drop more.
    seconds: wall time of `generate` on the batch, without preprocessing, divided by the number of its questions.
    kept: one entry per image; () if nothing was pruned or visual tokens have no place in the image.
    kv_cache_bytes: the size of the cache tensors after the prefill of this question alone; measured only on the first
        question of a task.
    error: what was raised, if anything. The score is then None, and the question counts neither as right nor wrong.
    """

    task: str
    id: str
    split: str
    strategy: str
    position_ids: str
    keep_ratio: float
    text: str
    score: Score
    n_visual: int = 0
    n_kept: int = 0
    n_mean: float = 0.0
    seconds: float = 0.0
    kept: tuple[KeptTokens, ...] = ()
    kv_cache_bytes: int | None = None
    error: str | None = None

    @classmethod
    def to(cls, question: Question, setup: SetupKey, *, text: str, score: Score, **facts: Any) -> "Answer":
        """Make the answer to a question under a setup; `facts` are the other fields."""
        return cls(question.task, question.id, question.split, *setup, text, score, **facts)

    @property
    def key(self) -> SetupKey:
        return SetupKey(self.strategy, self.position_ids, self.keep_ratio)

    @property
    def answer_key(self) -> AnswerKey:
        return AnswerKey(self.task, self.id, self.key)


def to_line(answer: Answer) -> str:
    return json.dumps(asdict(answer), ensure_ascii=False)


def from_line(line: str, where: str) -> Answer:
    """Return the answer in a line. DataError, naming `where`, if it is broken."""
    record = parse_json(line, where, "; delete the line and run the command again", one_line=True)
    values: dict[str, Any] = {item.name: field(record, item.name, where) for item in fields(Answer)}
    check_types(values, _KINDS, where)
    if not 0 <= (values["score"] or 0) <= 1:
        raise DataError(f"{where}: a score of {values['score']}, which is not between 0 and 1")
    values["kept"] = tuple(_kept(kept, where) for kept in values["kept"])
    return Answer(**values)


_NUMBER, _MAYBE = (int, float), type(None)
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("task", "id", "split", "strategy", "position_ids", "text"), str),
    **dict.fromkeys(("keep_ratio", "n_mean", "seconds"), _NUMBER),
    **dict.fromkeys(("n_visual", "n_kept"), int),
    "score": (*_NUMBER, _MAYBE),
    "kept": list,
    "kv_cache_bytes": (int, _MAYBE),
    "error": (str, _MAYBE),
}


def _kept(record: Any, where: str) -> KeptTokens:
    try:
        grids = tuple((int(t), int(h), int(w)) for t, h, w in field(record, "grids", where))
        base64.b64decode(field(record, "bits", where), validate=True)
    except (TypeError, ValueError) as error:
        raise error if isinstance(error, DataError) else DataError(f"{where}, 'kept': broken ({error})") from error
    return KeptTokens(grids, record["bits"])
