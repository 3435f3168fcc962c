"""A search that survives a kill: Optuna's study in a journal file, locked by one process at a time.

Every finished trial is on disk before the next one begins. A trial that was running when the process died is run again,
and it is the same one, because its sampler depends only on the seed and the finished trials.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from tokenprune.errors import DataError, SettingError
from tokenprune.evals.storage.files import lock_for_appending, naming
from tokenprune.evals.storage.identity import check_same

STUDY = "search"
#: What differs if the digest of questions does; right answers are not read.
WORDS = {"digest": "other questions or images"}


@contextmanager
def locked_study(
    path: Path,
    identity: Mapping[str, Any],
    instead: str = "Name another output, or delete the file to start again.",
) -> Iterator[optuna.Study]:
    """Yield the study in `path`, new or existing, locked against other processes.

    `identity` is what must not change between runs: JSON values by name. SettingError if it did, which says what to do
    `instead`, if another process holds the file, or if the file is something else. DataError if the file is deleted
    meanwhile; it is then written again.
    """
    with lock_for_appending(path, "another search is writing it") as held, naming(path), _quiet_optuna():
        lock = _AlreadyLocked(path, held)
        try:
            storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
            study = optuna.create_study(storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SettingError(f"{path}: no journal of a search. Name another output, or delete it.") from error
        stored = study.user_attrs.get("identity", identity)
        check_same(stored, identity, f"{path}: holds another search", instead, WORDS)
        study.set_user_attr("identity", dict(identity))
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        try:
            yield study
        except FileNotFoundError:  # Optuna also reads it by its path
            lock.check()
            raise
        lock.check()


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have a value, in order."""
    return study.get_trials(states=(TrialState.COMPLETE,))


def sampler_seed(seed: int, number: int) -> int:
    """Return the seed of sampler `number` of a search. A single sampler would restart from its seed after a kill and
    repeat its draws."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class _AlreadyLocked(JournalFileSymlinkLock):
    """Replaces Optuna's lock file, which a killed process would leave in place.

    Optuna opens the journal by its path for every append. If that is no longer the locked file with the trials so far,
    Optuna would silently begin another without them.
    """

    def __init__(self, path: Path, held: FileIO) -> None:
        super().__init__(str(path))
        self._path, self._held = path, held

    def check(self) -> None:
        """Raise DataError unless the path still leads to the locked file; if it leads to none, write it again."""
        held = os.fstat(self._held.fileno())
        try:
            if os.path.samestat(self._path.stat(), held):
                return
        except FileNotFoundError:
            self._held.seek(0)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(self._held.readall())
            raise DataError(
                f"{self._path}: was deleted while a search was writing it. It is there again, with every finished "
                f"trial: repeat the command to go on."
            ) from None
        raise DataError(
            f"{self._path}: was replaced while a search was writing it, and the trials of this search are lost. Name "
            f"another --output, and start again."
        )

    def acquire(self) -> bool:
        self.check()
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
