"""Measured rows, with what identifies their answers. They are small enough to be committed, so that any machine can
resume from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenprune.errors import SettingError
from tokenprune.evals.reading.fields import field
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.storage import files
from tokenprune.evals.storage.identity import check_same
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.results_io import read, to_line
from tokenprune.text_files import parse_json, read_text

AGAIN = "Name another --output, or delete the file to measure it again."


@dataclass(frozen=True)
class StoredRows:
    """A file of rows, which may not exist yet.

    identity: what determines the answers to be measured now, besides their setups.
    """

    file: Path
    identity: Mapping[str, Any]

    def rows(self) -> list[TaskResult]:
        """Return the stored rows. Raises SettingError if any has another model, other questions or other settings."""
        if not self.file.is_file():
            return []
        for number, line in enumerate(read_text(self.file).splitlines(), start=1):
            where = f"{self.file}, line {number}"
            identity = field(parse_json(line, where, one_line=True), "identity", where)
            check_same(identity, self.identity, f"{where}: holds another measurement", AGAIN)
        return read([self.file])

    def add(self, rows: Sequence[TaskResult]) -> None:
        """Add rows in one step: a killed process leaves either the old file or the new one."""
        lines = [json.dumps({**json.loads(to_line(row)), "identity": self.identity}) for row in rows]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        before = read_text(self.file) if self.file.is_file() else ""
        files.replace(self.file, before + "".join(f"{line}\n" for line in lines))

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Record which strategies cannot be measured, and why. Replaces what was recorded before."""
        beside = refused_beside(self.file)
        if not reasons:
            beside.unlink(missing_ok=True)
            return
        beside.parent.mkdir(parents=True, exist_ok=True)
        files.replace(beside, json.dumps(reasons, indent=2) + "\n")


def refused_beside(file: Path) -> Path:
    """Return the file that lists the strategies without rows in `file`, because they cannot prune that much."""
    return file.with_suffix(".refused.json")


def lacking(rows: Sequence[TaskResult], setups: Sequence[Setup], task: str, where: str) -> list[Setup]:
    """Return the setups that have no row for a task. Raises SettingError if one was measured with other settings."""
    of_task = {row.key: row for row in rows if row.task == task}
    for setup in setups:
        if (row := of_task.get(setup.key)) is not None:
            now = json.loads(json.dumps(setup.settings()))
            check_same(row.settings, now, f"{where}: {setup.key} was measured", AGAIN)
    return [setup for setup in setups if setup.key not in of_task]


@contextmanager
def claimed(lock: Path) -> Iterator[bool]:
    """Yield whether this process got a lock, which it then holds within the block. A killed process holds none."""
    with ExitStack() as held:
        try:
            held.enter_context(files.lock_for_appending(lock, "another process is measuring it"))
        except SettingError:
            is_mine = False
        else:
            is_mine = True
        yield is_mine
