"""A strategy in a JSON file: what `tokenprune optimize` writes and `patch(model, "settings.json")` loads."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tokenprune.errors import SettingError, unknown
from tokenprune.strategies import STRATEGIES
from tokenprune.strategy import Strategy

#: "strategy" and "settings" are what patch(model, name, **settings) takes; the others say where they come from.
KEYS = ("strategy", "settings", "model", "search")


@dataclass(frozen=True)
class SettingsFile:
    """The content of a settings file, in which every name is known and every value of a type that it may have.

    model: what the settings were found on; `layers` counts its decoder layers. search: how they were found.
    """

    path: Path
    strategy: str
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    search: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> SettingsFile:
        """Raises SettingError, with the file's name and the key, for whatever is wrong in it."""
        path = Path(path)
        content = _mapping(_json(path), str(path))
        _check_known(content, KEYS, f"{path}: ", "key")
        for key in ("strategy", "settings"):
            if key not in content:
                raise SettingError(f'{path}: no "{key}". Write {{"strategy": "fopru", "settings": {{...}}}}.')
        name = content["strategy"]
        if not isinstance(name, str) or name not in STRATEGIES:
            raise SettingError(f'{path}, "strategy": {unknown("strategy", name, STRATEGIES)}')
        settings, model, search = (
            _mapping(content.get(key, {}), f'{path}, "{key}"') for key in ("settings", "model", "search")
        )
        known = [field.name for field in fields(STRATEGIES[name])]
        _check_known(settings, known, f'{path}, "settings" of {name}: ', "setting")
        hints = get_type_hints(STRATEGIES[name])
        for key, value in settings.items():
            if not _fits(value, hints[key]):
                raise SettingError(f'{path}, "settings", "{key}": {value!r} is not of type {_written(hints[key])}.')
        return cls(path, name, settings, model, search)

    def made(self, **overriding: Any) -> Strategy:
        """The strategy, some of its settings replaced."""
        cls = STRATEGIES[self.strategy]
        known = [field.name for field in fields(cls)]
        _check_known(overriding, [*known, "position_ids"], f"{self.strategy}: ", "setting")
        try:
            return cls(**{**self.settings, **overriding})
        except SettingError as error:
            raise SettingError(f"{self.path}: {error}") from error

    def warn_unless_made_for(self, n_layers: int) -> None:
        """Warns where the model has another depth than the one that the settings were found on. The budget holds there
        all the same, so it is no error; that the settings are good is a guess."""
        made_for = self.model.get("layers", n_layers)
        if made_for != n_layers:
            warnings.warn(
                f"{self.path}: found on a model of {made_for} decoder layers; this one has {n_layers}. Search again: "
                f"tokenprune optimize --model PATH",
                stacklevel=3,
            )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise SettingError(f"{path}: no such settings file. Make one: tokenprune optimize --output {path}") from error
    except json.JSONDecodeError as error:
        raise SettingError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{path}, byte {error.start}: not UTF-8. Save the file as UTF-8.") from error


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingError(f"{where}: expected an object, found {value!r}.")
    return value


def _check_known(given: Iterable[str], known: Iterable[str], where: str, kind: str) -> None:
    for name in given:
        if name not in known:
            raise SettingError(f"{where}{unknown(kind, name, known)}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of an annotated type. true is no number, and 1 is a float."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is not None:
        return True  # what a container holds is for the strategy to check
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _written(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
