"""A command's options from a TOML or JSON file."""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from tokenprune.errors import unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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
            parser.error(f"argument --settings: {path}: names a settings file itself; write that file's options here")
        if name not in options:
            parser.error(f"argument --settings: {path}: {unknown('option', key, options)}")
        values = value if isinstance(value, list) else [value]
        if None in values:
            parser.error(f"argument --settings: {path}: {key} has null; give it a value, or leave it out")
        words += [f"--{name}", *map(_word, values)]
    return words


def _word(value: Any) -> str:
    """A value as a command line has it: a table is an option's JSON."""
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _read(path: Path, parser: ArgumentParser) -> dict[str, Any]:
    content: Any = None
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        parser.error(f"argument --settings: {path}: {error.strerror}")
    except UnicodeDecodeError as error:
        parser.error(f"argument --settings: {path}, byte {error.start}: not UTF-8; save the file as UTF-8")
    except (ValueError, RecursionError) as error:  # broken, nested too deeply, or an integer of thousands of digits
        parser.error(f"argument --settings: {path}: {error}")
    if not isinstance(content, dict):
        parser.error(f"argument --settings: {path}: expected options by name, found {type(content).__name__}")
    return content
