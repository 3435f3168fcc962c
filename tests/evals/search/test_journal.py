"""The journal of a search: a full disk, and deletion."""

import errno
from pathlib import Path

import pytest
from optuna.storages.journal import JournalFileBackend

from tokenprune.errors import DataError
from tokenprune.evals.search.journal import finished, locked_study


def test_a_full_disk_is_named_and_the_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def search() -> None:
        with locked_study(path, {}) as study:
            study.tell(study.ask(), 0.5)
            monkeypatch.setattr(JournalFileBackend, "append_logs", full)
            study.ask()

    path = tmp_path / "trials.log"
    with pytest.raises(DataError, match=r"trials\.log: cannot be written: No space left"):
        search()
    monkeypatch.undo()
    with locked_study(path, {}) as study:
        assert study.best_value == 0.5


@pytest.mark.parametrize("after_the_last_trial", [False, True])
@pytest.mark.parametrize("folder_too", [False, True])
def test_a_deleted_journal_is_noticed_and_nothing_is_lost(
    after_the_last_trial: bool, folder_too: bool, tmp_path: Path
) -> None:
    def search() -> None:
        with locked_study(path, {"seed": 1}) as study:
            study.tell(study.ask(), 0.5)
            path.unlink()
            if folder_too:
                path.parent.rmdir()
            if not after_the_last_trial:
                study.tell(study.ask(), 0.75)

    path = tmp_path / "run" / "settings.journal"
    with pytest.raises(DataError, match=r"settings\.journal: was deleted while .* repeat the command to go on"):
        search()
    with locked_study(path, {"seed": 1}) as study:
        assert [trial.value for trial in finished(study)] == [0.5]


def test_a_replaced_journal_is_left_alone(tmp_path: Path) -> None:
    def search() -> None:
        with locked_study(path, {}) as study:
            study.tell(study.ask(), 0.5)
            path.unlink()
            path.write_text("mine")
            study.ask()

    path = tmp_path / "settings.journal"
    with pytest.raises(DataError, match=r"settings\.journal: was replaced while .* Name another --output"):
        search()
    assert path.read_text() == "mine"
