"""Strategies as text: `fopru:layer=-2,mode=row`, `my_package.my_module:MyStrategy,layer=2`, `settings.json`, or several
in sequence: `pixelprune+fopru:mode=row`. A file that `tokenprune tune` could not prove: `unproven.json:unproven`."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenprune.errors import SettingError
from tokenprune.strategies.registry import (
    COMPOSE,
    STRATEGIES,
    check_known,
    check_types,
    construct,
    name_of,
    override,
    setting_types,
    strategy_class,
)
from tokenprune.strategies.settings import UNPROVEN, SettingsFile
from tokenprune.strategy import Strategy


@dataclass(frozen=True)
class StrategySpec:
    """A strategy named by a string, before it is constructed.

    name: registered, or `module:Class`.
    settings: the settings in the string, with values of the right types.
    file: the settings file, if the string is the path of one.
    """

    name: str
    strategy_class: type[Strategy]
    settings: Mapping[str, Any]
    file: SettingsFile | None = None

    @classmethod
    def read(cls, text: object, also: Iterable[str] = ()) -> StrategySpec:
        """Parse a string. Raises SettingError for anything wrong in it.

        also: further names that the caller accepts, for error messages.
        """
        steps = _outer_parts(text, "+") if isinstance(text, str) else []
        path = text.removesuffix(UNPROVEN) if isinstance(text, str) else ""
        if path.endswith(".json") and (len(steps) == 1 or Path(path).exists()):
            file = SettingsFile.read(path)
            if path == text:
                file.check_promise()
            return cls(file.strategy, file.strategy_class, file.settings, file)
        if isinstance(text, str) and len(steps) > 1:
            if not all(steps):
                raise SettingError(f"strategy {text!r}: a strategy is missing beside +. Write pixelprune+fopru.")
            for step in steps:
                cls.read_step(step).make()  # to say which of them is wrong
            return cls(text, strategy_class(COMPOSE), {"steps": tuple(steps)})
        if not isinstance(text, str) or ":" not in text:
            name = text.strip() if isinstance(text, str) else text
            return cls(str(name), strategy_class(name, also), {})
        name, words = _split(text)
        strategy = strategy_class(name, also)
        return cls(name, strategy, read_settings(strategy, words, f"strategy {text!r}: "))

    @classmethod
    def read_step(cls, text: object) -> StrategySpec:
        """Parse one step of a sequence. Raises SettingError for a step that is itself a sequence, such as a settings
        file that names itself as a step."""
        spec = cls.read(text)
        if name_of(spec.strategy_class) == COMPOSE:
            raise SettingError(f"Compose: {text!r} is itself several strategies. Write its steps instead.")
        return spec

    @property
    def budget_setting(self) -> str | None:
        """The setting in the string that says how much is kept; for a sequence that has none of its own, its last
        step's."""
        own = next((name for name in ("keep_ratio", "keep") if name in self.settings), None)
        steps = self.settings.get("steps") if name_of(self.strategy_class) == COMPOSE else None
        last = steps[-1] if isinstance(steps, (list, tuple)) and steps else None
        return own if own is not None or last is None else StrategySpec.read_step(last).budget_setting

    def make(self, overriding: Mapping[str, Any] | None = None, also: Iterable[str] = ()) -> Strategy:
        """Construct the strategy, with settings added or replaced. `also` as in `read`."""
        if self.file is not None:
            return self.file.make(overriding, also)
        return construct(self.strategy_class, self.name, override(self.settings, overriding or {}), also)


def parse(text: str, **settings: Any) -> Strategy:
    """Make the strategy that a string names, with further settings as keywords.

        parse("fopru:layer=-2,mode=row", keep_ratio=0.25)
        parse("my_package.my_module:MyStrategy,layer=2")
        parse("settings.json")
        parse("pixelprune+fopru", keep_ratio=0.25)

    Raises SettingError for anything wrong in it.
    """
    return StrategySpec.read(text).make(settings)


def read_settings(
    cls: type[Strategy], words: Mapping[str, Any], where: str, also: Iterable[str] = ()
) -> dict[str, Any]:
    """Convert the words of a command line to settings. Raises SettingError with a message prefixed by `where`."""
    check_known(cls, words, where, also)
    types = setting_types(cls)
    settings = {name: setting_value(word, types.get(name)) for name, word in words.items()}
    check_types(cls, settings, where)
    return settings


def setting_value(word: Any, hint: Any = None) -> Any:
    """Convert a word of a command line to a value: `[2, 4]` is a list; -2.0 is -2 for a setting that is not a float."""
    if isinstance(word, str):
        try:
            word = ast.literal_eval(word)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # a bare word, or too deep for a value
            return word
    is_whole = isinstance(word, float) and word.is_integer()
    return int(word) if is_whole and hint is not None and "float" not in str(hint) else word


def _outer_parts(text: str, separator: str = ",") -> list[str]:
    """Split a string at separators, except those inside a tuple, list or number. Spaces around the parts are
    stripped."""
    parts, depth = [""], 0
    for i, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if letter == separator and depth <= 0 and not (letter == "+" and text[i + 1 : i + 2].isdigit()):
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _split(text: str) -> tuple[str, dict[str, str]]:
    """`fopru:mode=row` -> ("fopru", {"mode": "row"}); `a.b:C,layer=2` -> ("a.b:C", {"layer": "2"}).

    The part before the colon is a module if it contains a dot, or if the part after it starts with a class name.
    """
    name, _, rest = text.partition(":")
    name = name.strip()
    words = [word for word in _outer_parts(rest) if word]
    names_class = bool(words) and words[0].isidentifier()
    if "." in name and not names_class:
        raise SettingError(f"strategy {text!r}: {name} is a module. Write {name}:Class,key=value")
    if names_class and name not in STRATEGIES:
        name = f"{name}:{words.pop(0)}"
    settings = {}
    for word in words:
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            form = f"{name},key=value" if ":" in name else "name:key=value,key=value"
            raise SettingError(f"strategy {text!r}: {word!r} is not a setting. Write settings as {form}")
        if key in settings:
            raise SettingError(f"strategy {text!r}: {key} is set twice. Leave one of them out.")
        settings[key] = value
    return name, settings
