"""The errors that tokenprune raises. Messages say what happened, where, and what to type next."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from traceback import extract_tb


class TokenPruneError(Exception):
    """The base class of all errors that tokenprune raises on purpose."""


class SettingError(TokenPruneError, ValueError):
    """A setting that cannot be right for any model."""


class DataError(TokenPruneError, ValueError):
    """A user's file, folder or data set that cannot be used; the message names it, with its line or record."""


class UnsupportedError(TokenPruneError, RuntimeError):
    """A model, version or combination that tokenprune does not handle. Raised by `patch`, which then changes nothing,
    and by calls that a patched model does not support, such as `generate_batch`."""


class PruningError(TokenPruneError, RuntimeError):
    """A forward pass of a patched model that cannot be pruned correctly."""


def to_install(extra: str) -> str:
    """What to type if the packages of one of this distribution's extras are missing."""
    return f'pip install "tokenprune-vlm[{extra}]", or in a clone: pip install -e ".[{extra}]"'


def missing_package(error: ModuleNotFoundError, extra: str, what: str = "This") -> str | None:
    """The sentence for a package of an `extra` that `what` needs and that is not installed; None if the missing module
    is tokenprune's own."""
    if error.name is None or error.name.startswith("tokenprune"):
        return None
    return f"{what} needs {error.name.partition('.')[0]}, which is not installed. Type: {to_install(extra)}"


def alike(name: str, other: str) -> bool:
    """Whether two names differ in nothing but case, hyphens and underscores."""
    return re.sub("[-_]", "", name).lower() == re.sub("[-_]", "", other).lower()


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The sentence for a name that is not in a list: what was read, the nearest guess, the whole list."""
    options = sorted(known)
    near = [option for option in options if alike(option, str(name))] or get_close_matches(str(name), options, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}.{guess} Known: {', '.join(options)}."


def user_location(error: BaseException) -> str | None:
    """The file and line of the user's code that an error comes from; None if it involves only our code, Python's or an
    installed package's."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.filename}, line {error.lineno}"
    others = "<", sysconfig.get_path("stdlib"), str(Path(__file__).parent)
    for frame in reversed(extract_tb(error.__traceback__)):
        if not frame.filename.startswith(others) and "-packages" not in frame.filename:
            return f"{frame.filename}, line {frame.lineno}"
    return None
