"""A run on the disk: `run.json` says what was asked of what, `answers*.jsonl` hold every answer, a line each.

Lines are only ever added, and each is on the disk before the next batch is asked, so a run that was killed at any
moment goes on where it was. `rows.jsonl` follows from them, and is written once there is every answer.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenprune.evals import durable, row_files
from tokenprune.evals.answers import Answer, Asked, from_line, to_line
from tokenprune.evals.records import read_json
from tokenprune.evals.rows import Row


class RunFolder:
    """The folder of one run, there already or not yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record, self._rows = path / "run.json", path / "rows.jsonl"

    def begin(self, identity: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Write a new run's `run.json`, or check that the run that is there was begun with the same `identity`.

        `identity` is what decides the answers, `about` what else is to be known. SettingError names what differs:
        answers under different settings must not meet in one folder.
        """
        if self._record.is_file():
            found, now = (_flat(of) for of in (self.record["identity"], json.loads(json.dumps(identity))))
            instead = f"Name another --output, or delete {self.path} to start again."
            durable.check_same(found, now, f"{self._record}: holds another run", instead)
        else:
            if self._answer_files():
                raise ValueError(f"{self.path}: answers without a run.json; name another --output")
            self.path.mkdir(parents=True, exist_ok=True)
            durable.replace(self._record, json.dumps({"identity": identity, "about": about}, indent=1) + "\n")

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` holds: `identity` and `about`. FileNotFoundError where there is no run."""
        if not self._record.is_file():
            raise FileNotFoundError(f"{self.path}: no run here, there is no run.json; tokenprune eval makes one")
        return read_json(self._record)

    def put_rows(self, rows: Sequence[Row]) -> None:
        durable.replace(self._rows, "".join(f"{row_files.to_line(row)}\n" for row in rows))

    def rows(self) -> list[Row]:
        """Return the rows of a finished run."""
        return row_files.read([self.rows_file])

    @property
    def rows_file(self) -> Path:
        """The file of the rows of a finished run; ValueError where it is not finished."""
        if not self._rows.is_file():
            n = len(self.answers()) if self.record else 0
            raise ValueError(f"{self.path}: not finished; it has {n} answers, and the command that began it goes on")
        return self._rows

    def answers(self) -> dict[Asked, Answer]:
        """Return every answer. A last line that a killed process left unfinished is none."""
        answers: dict[Asked, Answer] = {}
        for path in self._answer_files():
            *lines, _unfinished = path.read_bytes().split(b"\n")
            for number, line in enumerate(lines, start=1):
                where = f"{path}, line {number}"
                try:
                    answer = from_line(line.decode(), where)
                except UnicodeDecodeError as error:
                    raise ValueError(f"{where}: not UTF-8; delete this line and run the command again") from error
                if answers.setdefault(answer.asked, answer) is not answer:
                    raise ValueError(f"{where}: {answer.id} is there twice under {answer.key}; delete one of the lines")
        return answers

    @contextmanager
    def writing(self, process: int = 0) -> Iterator[Callable[[Sequence[Answer]], None]]:
        """Give what adds answers to the file of one of the run's processes, which no other one may hold."""
        name = f"answers.{process}.jsonl" if process else "answers.jsonl"
        with durable.held(self.path / name, "another run is writing it") as file:
            yield lambda answers: durable.append(file, "".join(f"{to_line(answer)}\n" for answer in answers))

    def _answer_files(self) -> list[Path]:
        return sorted(self.path.glob("answers*.jsonl"))


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}, so that a difference can be named."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat
