"""The journal of a search, whose disk may be full."""

import errno
from pathlib import Path

import pytest
from optuna.storages.journal import JournalFileBackend

from tokenprune.errors import DataError
from tokenprune.evals.search.journal import held_study


def test_a_full_disk_is_named_and_the_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def search() -> None:
        with held_study(path, {}) as study:
            study.tell(study.ask(), 0.5)
            monkeypatch.setattr(JournalFileBackend, "append_logs", full)
            study.ask()

    path = tmp_path / "trials.log"
    with pytest.raises(DataError, match=r"trials\.log: cannot be written: No space left"):
        search()
    monkeypatch.undo()
    with held_study(path, {}) as study:
        assert study.best_value == 0.5
