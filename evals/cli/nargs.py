"""Options that take several values, and files that give options: what Typer's own commands lack."""

import difflib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


OPEN = __name__ + ".open"  # where a context has the option that may get further values


class SeveralValues(TyperCommand):
    """A command in which `--tasks pope textvqa` means `--tasks pope --tasks textvqa`.

    Its positional arguments come before such options, whose values they could not be told from.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        several = {name: option for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        last = next((arg for arg in reversed(args) if arg.startswith("--")), "")
        ctx.meta[OPEN] = several.get(last)
        return super().parse_args(ctx, list(_repeated(args, set(several))))

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """What a shell may complete where no value is awaited, but an option takes more of them."""
        if ctx.meta[OPEN] is None or incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return ctx.meta[OPEN].shell_complete(ctx, incomplete)


def _repeated(args: Sequence[str], several: set[str]) -> Iterator[str]:
    option: str | None = None
    n_values = 0
    for arg in args:
        if arg.startswith("--"):
            option, n_values = (arg if arg in several else None), 0
        elif option is not None:
            n_values += 1
            if n_values > 1:
                yield option
        yield arg


def options_file(context: Any, path: str | Path | None) -> str | Path | None:
    """A callback of an option: what a TOML or JSON file holds are the other options' defaults from then on.

    Keys are the options' names without dashes before them.
    """
    if path is None:
        return None
    options = {option.lstrip("-"): parameter for parameter in context.command.params for option in parameter.opts}
    defaults: dict[str, Any] = {}
    for key, value in _read(Path(path)).items():
        option = options.get(key.replace("_", "-"))
        if option is None:
            near = difflib.get_close_matches(key, options, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(options)}."
            raise typer.BadParameter(f"{path}: no option {key!r}. {hint}")
        defaults[option.name] = [value] if option.multiple and not isinstance(value, list) else value
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path}, byte {error.start}: not UTF-8; save the file as UTF-8") from error
    try:
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise typer.BadParameter(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise typer.BadParameter(f"{path}: expected options by name, found {type(content).__name__}")
    return content
