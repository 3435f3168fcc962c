"""A command's options from a TOML or JSON file."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError, unknown
from tokenprune.text_files import read_json, read_toml


def add_settings(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="TOML or JSON file with any of these options; those on the command line take precedence",
    )


def arguments_of(path: Path, parser: ArgumentParser) -> list[str]:
    """Return the options in the file as words of a command line. Keys are the options' names without leading dashes.

    Exits through `parser.error` for a file that cannot be read and for keys that are not options of `parser`.
    """
    options = [name.removeprefix("--") for name in parser._option_string_actions if name.startswith("--")]
    options.remove("help")
    words: list[str] = []
    for key, value in _read(path, parser).items():
        name = key.replace("_", "-")
        if name == "settings":
            parser.error(f"argument --settings: {path}: cannot name another settings file; write its options here")
        if name not in options:
            parser.error(f"argument --settings: {path}: {unknown('option', key, options)}")
        values = value if isinstance(value, list) else [value]
        if None in values:
            parser.error(f"argument --settings: {path}: {key} is null; give it a value, or leave it out")
        words += [f"--{name}", *map(_word, values)]
    return words


def _word(value: Any) -> str:
    """Return a value as a word of the command line. A table becomes JSON."""
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _read(path: Path, parser: ArgumentParser) -> dict[str, Any]:
    content: Any = None
    try:
        content = read_json(path) if path.suffix == ".json" else read_toml(path)
    except OSError as error:
        parser.error(f"argument --settings: {path}: {error.strerror}")
    except DataError as error:  # its message names the file
        parser.error(f"argument --settings: {error}")
    if not isinstance(content, dict):
        parser.error(f"argument --settings: {path}: expected options by name, found {type(content).__name__}")
    return content
