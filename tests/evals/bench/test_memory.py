"""With glibc, freed memory stays in the process."""

import os
import platform
import subprocess
import sys

import pytest

from tokenprune.evals.bench.timing.memory import ENVIRONMENT, keep_memory

#: Prints how many pages are faulted in for large blocks that are allocated and freed.
FETCHED = """
import resource, sys
import torch
from tokenprune.evals.bench.timing.memory import keep_memory
if sys.argv[1] == "kept":
    assert keep_memory()
torch.ones(16 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def fetched(how: str, environment: dict[str, str]) -> int:
    command = [sys.executable, "-c", FETCHED, how]
    return int(subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_are_fetched_once() -> None:
    own = fetched("as it is", {})
    assert own > 100
    assert fetched("kept", {}) < own / 10
    assert fetched("as it is", ENVIRONMENT) < own / 10


def test_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_memory()
