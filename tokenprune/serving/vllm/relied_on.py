"""What the plug-in relies on in vLLM, listed in `relied_on.json`: names, and how vLLM calls what overrides its methods.

A name that is missing keeps the models that need it from being imported, and no others. An override that vLLM no longer
has, or no longer calls, is an error, because answers would be wrong without a word. Does not load vLLM.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from tokenprune.errors import PruningError, UnsupportedError
from tokenprune.serving.vllm.architectures.releases import tested

#: Our classes with overrides.
PROCESSOR, MODEL = "PruningProcessor", "PrunedModel"
WAY_OUT = f"Install vLLM {tested('or')}, or serve the model unpruned with `vllm serve`."


@cache
def listed() -> dict[str, Any]:
    """The list: `names`, patterns of vLLM's names with what each is for, and `overrides`, by our class, with how vLLM
    calls each."""
    return json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def purpose_of(name: str) -> str | None:
    """What a name of vLLM's is for; None if it is not listed."""
    names: dict[str, str] = listed()["names"]
    return next((purpose for pattern, purpose in names.items() if fnmatchcase(name, pattern)), None)


def lack(error: ImportError | AttributeError, architecture: str) -> str | None:
    """Why an architecture cannot be served, if vLLM lacks a name that its module or one of ours imports; None for any
    other error."""
    if isinstance(error, ImportError):
        imported = re.match(r"cannot import name '(\w+)'", str(error))
        name = f"{error.name}.{imported[1]}" if imported else str(error.name)
    else:
        name = f"{getattr(error.obj, '__name__', '')}.{error.name}"
    if name.partition(".")[0] != "vllm":
        return None
    purpose = purpose_of(name)
    return f"this vLLM has no {name}{f' ({purpose})' if purpose else ''}, which {architecture} needs. {WAY_OUT}"


def check_overridden(cls: type, ours: str, *interfaces: type) -> None:
    """Raise UnsupportedError for a subclass of our class `ours` if the vLLM class that it is mixed into, if any, and
    the interfaces of vLLM's that it has without inheriting them, lack a method that `ours` overrides."""
    theirs = [one for one in cls.__mro__ if one.__module__.partition(".")[0] == "vllm"]
    for name, call in listed()["overrides"][ours].items():
        if theirs and not any(name in vars(one) for one in (*theirs, *interfaces)):
            raise UnsupportedError(f"this vLLM has no method {name}, {call}, and {cls.__name__} needs it. {WAY_OUT}")


class Reached:
    """Which overrides of our class `ours` vLLM has called in this process."""

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def note(self, name: str) -> None:
        self._names.add(name)

    def require(self, *names: str) -> None:
        """Raise PruningError for the first of these that was not called."""
        for name in names:
            if name not in self._names:
                raise self.missed(name)

    def missed(self, name: str) -> PruningError:
        """The error for an override that was not called as it must be."""
        call = listed()["overrides"][self._ours][name]
        return PruningError(f"this vLLM did not call {name}, {call}. Images would be pruned wrongly. {WAY_OUT}")
