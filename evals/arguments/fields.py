"""One definition for the arguments of a function and the options of its command: the fields of a settings class.

A field's `metadata` describes its option. It holds arguments of argparse's `add_argument`, and

name       `--name-on-the-command-line`, if it is not the field's
default    what the command takes for it, if that is not the field's default
completer  completes it in a shell

A field without metadata has no option.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from tokenprune.checks import is_integer, plain
from tokenprune.errors import SettingError, unknown
from tokenprune.evals.arguments.parser import count

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True)
class Settings:
    """What settings classes inherit: a Python caller's values are checked like words of a command line. None is a
    default.

    SettingError, naming the argument, for a single value where several are expected, and for an iterator, which is
    empty when it is read again; for a count that is not a whole number above 0; and for a value that is no choice.
    """

    def __post_init__(self) -> None:
        for setting in fields(self):
            name, about = setting.name, setting.metadata
            value = getattr(self, name)
            if value is None:
                continue
            if "nargs" in about and (isinstance(value, (str, Iterator)) or not isinstance(value, Iterable)):
                raise SettingError(f"{name}: found {value!r}, which is not a list; write {name}=[...]")
            if "choices" in about:
                wrong = [item for item in (value if "nargs" in about else [value]) if item not in about["choices"]]
                if wrong:
                    raise SettingError(unknown(name, wrong[0], about["choices"]))
            if about.get("type") is count and "nargs" not in about:
                if not is_integer(value) or value < 1:
                    raise SettingError(f"{name}={value!r} is not a whole number above 0")
                object.__setattr__(self, name, plain(value))  # numpy's as int


def taking(settings: Callable[P, S]) -> Callable[[Callable[[S], R]], Callable[P, R]]:
    """Let callers of a function of settings write the settings' fields as its arguments."""

    def decorated(function: Callable[[S], R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(settings(*args, **kwargs))

        shown: Any = call
        shown.__signature__ = signature(settings).replace(return_annotation=signature(function).return_annotation)
        return call

    return decorated


def option(default: Any, metadata: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """Return a field with a default and an option."""
    return field(default=default, metadata={**(metadata or {}), **more})


def add_option(parser: ArgumentParser, name: str, metadata: Mapping[str, Any], **more: Any) -> None:
    """Add the option that `metadata` describes. Its value gets the name `name`."""
    about = {**metadata, **more}
    name_there, completer = about.pop("name", f"--{name.replace('_', '-')}"), about.pop("completer", None)
    action: Any = parser.add_argument(name_there, dest=name, **about)
    action.completer = completer


def add_fields(parser: ArgumentParser, settings: type[Settings]) -> None:
    """Add the options of a settings class, in the order of its fields."""
    for setting in fields(settings):
        if setting.metadata:
            add_option(parser, setting.name, {"default": setting.default, **setting.metadata})


def given(options: Namespace, settings: type[Settings]) -> dict[str, Any]:
    """Return the values of a settings class's options, as arguments. argparse's lists become tuples."""
    values = {setting.name: getattr(options, setting.name) for setting in fields(settings) if setting.metadata}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
