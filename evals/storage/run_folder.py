"""A run on disk: `run.json` identifies it, `answers*.jsonl` hold every answer, one per line.

Lines are only ever appended, and each is on disk before the next batch is asked, so a run killed at any moment can
resume. The results in `rows.jsonl` follow from the answers; the file exists once all answers do.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError, SettingError
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.fields import field
from tokenprune.evals.storage import files, results_io
from tokenprune.evals.storage.answers import Answer, AnswerKey, from_line, to_line
from tokenprune.evals.storage.identity import LISTED, check_same
from tokenprune.evals.storage.results import TaskResult
from tokenprune.text_files import read_json

#: The parts of the identity that may grow, because more can be asked in the same folder.
GROWING = ("setups", "data")


class RunFolder:
    """The folder of one run, which may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record, self._results = path / "run.json", path / "rows.jsonl"

    def begin(self, identity: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Write `run.json` for a new run, or for the existing one, which must have the same `identity`.

        Only while `writing`, so that no other process's run is changed.

        identity: everything that affects the answers. The run may grow by setups and tasks, if all existing ones are
            named again. Any other difference raises SettingError, which lists it, because answers under different
            settings must not be mixed in one folder.
        about: everything else worth recording, such as where model and data are now. `begun` keeps its first value.
        """
        now = json.loads(json.dumps({"identity": identity, "about": about}))
        if self._begun(now["identity"]):
            stored = self.record
            now["about"] |= {name: value for name, value in stored["about"].items() if name == "begun"}
            if now != stored:
                self._write(now)
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write(now)

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raise the errors of `begin`, and write nothing."""
        self._begun(json.loads(json.dumps(identity)))

    def _begun(self, now: dict[str, Any]) -> bool:
        """Return whether there is a run; it must have this identity or be able to grow to it."""
        if self._record.is_file():
            stored = self.record["identity"]
            same = now | {
                part: {name: now[part][name] for name in now[part] if name in stored[part]} for part in GROWING
            }
            self._check_same(stored, same)
            return True
        if any(path.stat().st_size for path in self._answer_files()):  # a run killed right away has an empty file
            raise DataError(f"{self.path}: has answers but no run.json. Name another --output.")
        return False

    def _check_same(self, stored: dict[str, Any], now: dict[str, Any]) -> None:
        """Raise SettingError that names what differs; setups only if nothing else does, as there may be many."""
        holds = f"{self._record}: holds another run"
        instead = (
            f"Name another --output, or delete {self.path} to start again. (To add strategies, keep ratios, "
            "position IDs or tasks to a run, also name those that it has. A settings file leaves out images: to add "
            "one later, begin the run with --apart-from FILE.)"
        )
        others = [{name: value for name, value in part.items() if name != "setups"} for part in (stored, now)]
        check_same(others[0], others[1], holds, instead)
        unnamed = [key for key in stored["setups"] if key not in now["setups"]]
        if unnamed:
            listed, more = "; ".join(unnamed[:LISTED]), len(unnamed) - LISTED
            further = f"; and {more} more" if more > 0 else ""
            raise SettingError(f"{holds}, with setups that are not named now: {listed}{further}. {instead}")
        for key, was in stored["setups"].items():
            measured, is_now = f"{holds}, in which {key} was measured", now["setups"][key]
            check_same({"settings": was}, {"settings": is_now}, measured, instead)

    def _write(self, record: Mapping[str, Any]) -> None:
        self.drop_results()
        files.replace(self._record, json.dumps(record, indent=1) + "\n")

    @property
    def record(self) -> dict[str, Any]:
        """The content of `run.json`: `identity` and `about`. DataError if there is no run."""
        if not self._record.is_file():
            if not self.path.exists():
                raise DataError(f"{self.path}: no such folder. `tokenprune eval --output {self.path}` makes one")
            inside = f". Runs in it: {self.path}/*" if any(self.path.glob("*/run.json")) else ""
            raise DataError(f"{self.path} has no run.json, so it is not a run; `tokenprune eval` starts one{inside}")
        record, where = read_json(self._record), str(self._record)
        identity, about = (field(record, part, where) for part in ("identity", "about"))
        for part in GROWING:
            if part not in fields.as_object(identity, f"{where}, 'identity'"):
                raise DataError(
                    f"{where}, 'identity': no {part!r}, so another version of tokenprune began the run, or it was "
                    f"edited. Name another --output, or delete {self.path} to start again. (`tokenprune report` takes "
                    f"its rows.jsonl alone.)"
                )
            fields.as_object(identity[part], f"{where}, 'identity', {part!r}")
        fields.as_object(about, f"{where}, 'about'")
        return record

    def drop_results(self) -> None:
        """Mark the run as unfinished."""
        self._results.unlink(missing_ok=True)

    def write_results(self, results: Sequence[TaskResult]) -> None:
        results_io.write(self._results, results)

    def results(self) -> list[TaskResult]:
        """Return the results of a finished run."""
        return results_io.read([self.results_file])

    @property
    def results_file(self) -> Path:
        """The file with the results of a finished run. DataError if the run is not finished."""
        if not self._results.is_file():
            raise DataError(
                f"{self.path}: unfinished, with {len(self.answers())} of {self._n_asked()} answers. To resume it, "
                "repeat the command that started it; or leave this folder out of the report."
            )
        return self._results

    def _n_asked(self) -> int:
        identity = self.record["identity"]
        tasks = [task for task in identity["data"].values() if isinstance(task, dict)]
        return len(identity["setups"]) * sum(
            fields.integer(task, "questions", f"{self._record}, 'data'") for task in tasks
        )

    def answers(self) -> dict[AnswerKey, Answer]:
        """Return every answer, without a last line that a killed process left unfinished.

        A failed question may appear again, with the outcome of a later attempt.
        """
        answers: dict[AnswerKey, Answer] = {}
        for path in self._answer_files():
            *lines, _unfinished = path.read_bytes().split(b"\n")
            for number, line in enumerate(lines, start=1):
                where = f"{path}, line {number}"
                try:
                    answer = from_line(line.decode(), where)
                except UnicodeDecodeError as error:
                    raise DataError(f"{where}: not UTF-8; delete the line and run the command again") from error
                known = answers.get(answer.answer_key)
                if known is not None and known.error is None and answer.error is None:
                    raise DataError(f"{where}: {answer.id} appears twice under {answer.key}; delete one of the lines")
                if known is None or known.error is not None:
                    answers[answer.answer_key] = answer
        return answers

    @contextmanager
    def writing(self, process: int = 0) -> Iterator[Callable[[Sequence[Answer]], None]]:
        """Yield a function that appends answers to the file of one of the run's processes, and lock that file."""
        name = f"answers.{process}.jsonl" if process else "answers.jsonl"
        with files.lock_for_appending(self.path / name, "another run is writing it") as file:
            yield lambda answers: files.append(file, "".join(f"{to_line(answer)}\n" for answer in answers))

    def _answer_files(self) -> list[Path]:
        return sorted(self.path.glob("answers*.jsonl"))
