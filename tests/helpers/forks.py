"""Processes that are killed or import modules again: forks of this one, which has already imported everything."""

import os
from collections.abc import Callable

import pytest
import torch

#: A fork has only one thread; Python warns because it cannot know that the others are not needed.
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def forked(run: Callable[[], object]) -> int:
    """Start `run` in a fork, whose standard output is lost, and return its process ID.

    The fork exits with 0, or with 1 if `run` raises or returns the value of a failed command (`helpers.commands`).
    """
    process = os.fork()
    if process == 0:
        status = 1
        try:
            torch.set_num_threads(1)  # the fork lacks OpenMP's threads
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            status = int(bool(run()))
        except BaseException:  # noqa: BLE001  # a fork must not go on as pytest does
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return process


def returned_in_fork(run: Callable[[], object]) -> str:
    """Return the result of `run` in a fork, as text. Its imports and changes stay in the fork."""
    reading, writing = os.pipe()

    def told() -> None:
        os.write(writing, str(run()).encode())

    process = forked(told)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(process, 0)
    return said
