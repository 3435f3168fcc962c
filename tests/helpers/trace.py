"""The files of ours that a call enters, in order."""

import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import tokenprune

PACKAGE = Path(tokenprune.__file__).parent
ADAPTERS = (PACKAGE / "adapters").resolve()


def _name(file: str) -> str | None:
    """Return the file's path inside the package; None for other files."""
    path = Path(file)
    for folder, prefix in ((PACKAGE, ""), (ADAPTERS, "adapters/")):
        if path.is_relative_to(folder):
            return prefix + str(path.relative_to(folder))
    return None


def files_entered(call: Callable[[], Any]) -> list[str]:
    """Return the file of every function of ours that is called, with consecutive calls in one file merged."""
    names: dict[str, str | None] = {}
    entered: list[str] = []

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        file = frame.f_code.co_filename
        if file not in names:
            names[file] = _name(file)
        if (name := names[file]) is not None:
            entered.append(name)

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return [file for file, _ in groupby(entered)]
