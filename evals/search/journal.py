"""A search that survives a kill: Optuna's study in a journal file, locked by one process at a time.

Every finished trial is on disk before the next one begins. A trial that was running when the process died is run again,
and it is the same one, because its sampler depends only on the seed and the finished trials.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from tokenprune.errors import SettingError
from tokenprune.evals.storage.files import check_same, lock_for_appending, naming

STUDY = "search"


@contextmanager
def held_study(path: Path, identity: Mapping[str, Any]) -> Iterator[optuna.Study]:
    """Give the study in `path`, a new one or the one that is there, and keep every other process off it.

    `identity` is what must not change between runs: JSON values by name. SettingError where it did, where another
    process holds the file, and where the file is something else.
    """
    with lock_for_appending(path, "another search is writing it"), naming(path), _quiet_optuna():
        try:
            storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_AlreadyLocked(str(path))))
            study = optuna.create_study(storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SettingError(f"{path}: no journal of a search. Name another output, or delete it.") from error
        found = study.user_attrs.get("identity", identity)
        instead = "Name another output, or delete the file to start again."
        check_same(found, identity, f"{path}: holds another search", instead)
        study.set_user_attr("identity", dict(identity))
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        yield study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have a value, in order."""
    return study.get_trials(states=(TrialState.COMPLETE,))


class _AlreadyLocked(JournalFileSymlinkLock):
    """Replaces Optuna's lock file, which a killed process would leave in place."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
