"""The argument parser of commands and demos: the help of every option shows its default."""

from __future__ import annotations

import json
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, HelpFormatter, _SubParsersAction
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from textwrap import fill
from typing import Any

#: How many questions are asked, in commands that ask them all by default and in others.
COUNTS = ("--limit", "--questions")


class Formatter(HelpFormatter):
    """Wraps paragraphs, keeps indented ones, and adds the default to an option's help unless the text names it."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split("\n\n")
        return "\n\n".join(part if part.startswith(" ") else fill(part, width) for part in paragraphs)

    def _format_action(self, action: Action) -> str:
        if isinstance(action, _SubParsersAction):  # leaves out the line that says only COMMAND
            return self._join_parts([self._format_action(command) for command in action._get_subactions()])
        return super()._format_action(action)

    def _get_help_string(self, action: Action) -> str | None:
        is_switch = action.const is False  # the name of --no-labels already says that labels are read by default
        without = is_switch or any(action.default is none for none in (None, False, SUPPRESS))
        if action.help is None or without or "(default: " in action.help:
            return action.help
        if isinstance(action.default, (list, tuple)):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return f"{action.help} (default: %(default)s)"


def script_parser(description: str | None) -> ArgumentParser:
    """Return the parser of a script with this docstring."""
    return ArgumentParser(description=description, formatter_class=Formatter, allow_abbrev=False)


def unrecognized(parser: ArgumentParser, words: Sequence[str]) -> str:
    """Return the error for arguments that a command does not take. It suggests the option that was probably meant, or
    --model for a bare word."""
    said, first = f"unrecognized arguments: {' '.join(words)}.", words[0].partition("=")[0]
    options = [option for action in parser._actions if action.dest != "help" for option in action.option_strings]
    if not first.startswith("-") and "--model" in options:
        data = f", or --data {first}, if it has the questions" if "--data" in options else ""
        return f"{said} Write --model {first}, if that is the model{data}."
    near = [name for name in COUNTS if first in COUNTS and name in options] or get_close_matches(first, options, n=1)
    return f"{said} Did you mean {near[0]}?" if near else f"{said} Type: {parser.prog} --help"


def not_empty(text: str) -> str:
    """Argument type: a text with a character other than spaces. An empty path would mean the current folder."""
    if not text.strip():
        raise ArgumentTypeError("empty, like a shell variable that is not set")
    return text


def a_path(text: str) -> Path:
    """Argument type: a path."""
    return Path(not_empty(text))


def number(text: str) -> float:
    """Argument type: a number."""
    try:
        return float(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text} is not a number; write one such as 0.5") from error


def fraction(text: str) -> float:
    """Argument type: a number above 0 and up to 1."""
    try:
        value = float(text.removesuffix("%").replace(",", "."))
    except ValueError:
        value = 0.0
    if "%" not in text and "," not in text and 0 < value <= 1:
        return value
    meant = value / 100 if "%" in text or value >= 10 else value
    instead = meant if 0 < meant <= 1 else 0.25
    raise ArgumentTypeError(f"{text} is not a fraction above 0 and up to 1; write {instead:g}")


def existing_file(text: str) -> Path:
    """Argument type: a file that exists."""
    if text.startswith(("http://", "https://")):
        raise ArgumentTypeError(f"{text} is an address; download the file, and write its path")
    if Path(text).is_dir():
        raise ArgumentTypeError(f"{text} is a folder; name a file in it")
    if not Path(text).is_file():
        raise ArgumentTypeError(f"{text}: no such file")
    return Path(text)


def at_least(least: int | float, kind: type[int] | type[float] = int) -> Callable[[str], int | float]:
    """Return the type of an option that takes finite numbers from `least` up."""

    def number(text: str) -> int | float:
        value = kind(text)
        if not isfinite(value):
            raise ArgumentTypeError(f"{text} is not a finite number")
        if value < least:
            raise ArgumentTypeError(f"{text} is less than {least}")
        return value

    number.__name__ = "whole number" if kind is int else "number"  # argparse says: invalid whole number value: 'x'
    return number


#: Argument type: a whole number above 0.
count = at_least(1)


def json_object(text: str) -> dict[str, Any]:
    """Argument type: a JSON object."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ArgumentTypeError(f"not JSON: {error}; write it like '{{\"name\": 1}}'") from error
    if not isinstance(content, dict):
        raise ArgumentTypeError(f"{text} is not a JSON object")
    return content
