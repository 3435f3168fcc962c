"""A run on the disk: `run.json` says what was asked of what, `answers*.jsonl` hold every answer, a line each.

Lines are only ever added, and each is on the disk before the next batch is asked, so a run that was killed at any
moment goes on where it was. `rows.jsonl` follows from them, and is there once every answer is.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError
from tokenprune.evals.run import files, results_io
from tokenprune.evals.run.answers import Answer, AnswerKey, from_line, to_line
from tokenprune.evals.run.results import TaskResult
from tokenprune.evals.tasks._read.records import read_json

#: Those parts of the identity that name what is asked; more may be asked in the same folder.
GROWING = ("configurations", "data")


class RunFolder:
    """The folder of one run, there already or not yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record, self._rows = path / "run.json", path / "rows.jsonl"

    def begin(self, identity: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Write a new run's `run.json`, or check that the run that is there was begun with the same `identity`.

        `identity` is what decides the answers, `about` what else is to be known. The run may grow, by setups
        and tasks beside all of those that it has. SettingError names anything else that differs: answers under
        different settings must not meet in one folder.
        """
        now = json.loads(json.dumps(identity))
        if self._record.is_file():
            record = self.record
            found = record["identity"]
            same = now | {
                part: {name: now[part][name] for name in now[part] if name in found[part]} for part in GROWING
            }
            instead = (
                f"Name another --output, or delete {self.path} to start again. (It may grow, by strategies, keep "
                "ratios, position IDs and tasks, if those that it has are named too.)"
            )
            files.check_same(_flat(found), _flat(same), f"{self._record}: holds another run", instead)
            if now != found:
                self._write(now, record["about"])
        else:
            if self._answer_files():
                raise DataError(f"{self.path}: answers without a run.json; name another --output")
            self.path.mkdir(parents=True, exist_ok=True)
            self._write(now, about)

    def _write(self, identity: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        self.drop_results()
        files.replace(self._record, json.dumps({"identity": identity, "about": about}, indent=1) + "\n")

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` holds: `identity` and `about`. DataError where there is no run."""
        if not self._record.is_file():
            raise DataError(f"{self.path}: no run here, there is no run.json; tokenprune eval makes one")
        return read_json(self._record)

    def drop_results(self) -> None:
        """Say that the run is not finished."""
        self._rows.unlink(missing_ok=True)

    def write_results(self, rows: Sequence[TaskResult]) -> None:
        files.replace(self._rows, "".join(f"{results_io.to_line(row)}\n" for row in rows))

    def rows(self) -> list[TaskResult]:
        """Return the rows of a finished run."""
        return results_io.read([self.results_file])

    @property
    def results_file(self) -> Path:
        """The file of the rows of a finished run; ValueError where it is not finished."""
        if not self._rows.is_file():
            raise DataError(
                f"{self.path}: not finished, it has {len(self.answers())} of {self._n_asked()} answers. The command "
                "that began it goes on with it; for a report without it, leave it out."
            )
        return self._rows

    def _n_asked(self) -> int:
        identity = self.record["identity"]
        tasks = [task for task in identity["data"].values() if isinstance(task, dict)]
        return len(identity["configurations"]) * sum(task["questions"] for task in tasks)

    def answers(self) -> dict[AnswerKey, Answer]:
        """Return every answer. A last line that a killed process left unfinished is none.

        A question that could not be asked may be there again, with what came of asking it later.
        """
        answers: dict[AnswerKey, Answer] = {}
        for path in self._answer_files():
            *lines, _unfinished = path.read_bytes().split(b"\n")
            for number, line in enumerate(lines, start=1):
                where = f"{path}, line {number}"
                try:
                    answer = from_line(line.decode(), where)
                except UnicodeDecodeError as error:
                    raise DataError(f"{where}: not UTF-8; delete this line and run the command again") from error
                known = answers.get(answer.answer_key)
                if known is not None and known.error is None and answer.error is None:
                    raise DataError(f"{where}: {answer.id} is there twice under {answer.key}; delete one of the lines")
                if known is None or known.error is not None:
                    answers[answer.answer_key] = answer
        return answers

    @contextmanager
    def writing(self, process: int = 0) -> Iterator[Callable[[Sequence[Answer]], None]]:
        """Give what adds answers to the file of one of the run's processes, which no other one may hold."""
        name = f"answers.{process}.jsonl" if process else "answers.jsonl"
        with files.held(self.path / name, "another run is writing it") as file:
            yield lambda answers: files.append(file, "".join(f"{to_line(answer)}\n" for answer in answers))

    def _answer_files(self) -> list[Path]:
        return sorted(self.path.glob("answers*.jsonl"))


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}, so that a difference can be named."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat
