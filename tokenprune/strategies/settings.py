"""Settings files: strategies as JSON, written by `tokenprune tune` and `optimize`, loaded by `patch(model, FILE)`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenprune.errors import SettingError, unknown
from tokenprune.strategies.registry import check_known, check_types, construct, override, strategy_class
from tokenprune.strategy import Strategy
from tokenprune.text_files import read_json

#: "strategy" and "settings" are the arguments of patch(model, name, **settings); the others record their origin.
KEYS = ("strategy", "settings", "model", "search")
#: What follows the path of a file to use it although `tokenprune tune` could not show that it keeps its promise.
UNPROVEN = ":unproven"


@dataclass(frozen=True)
class SettingsFile:
    """The validated content of a settings file.

    strategy: a registered name, or `my_package.my_module:MyStrategy`; `strategy_class` is its class.
    model: the model that the settings were found on; `layers` is the number of its decoder layers.
    search: the search that found them.
    """

    path: Path
    strategy: str
    strategy_class: type[Strategy]
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    search: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> SettingsFile:
        """Read a file. Raises SettingError, with the file's name and the key, for anything wrong in it."""
        path = Path(path)
        if path.is_dir() or not path.exists():
            raise SettingError(f"{path}: no such settings file. `tokenprune tune` and `optimize` make one.")
        content = _mapping(read_json(path, SettingError), str(path))
        _check_keys(content, str(path))
        for key in ("strategy", "settings"):
            if key not in content:
                raise SettingError(f'{path}: no "{key}". Write {{"strategy": "fopru", "settings": {{...}}}}.')
        name = content["strategy"]
        try:
            strategy = strategy_class(name)
        except SettingError as error:
            raise SettingError(f'{path}, "strategy": {error}') from error
        settings, model, search = (
            _mapping(content.get(key, {}), f'{path}, "{key}"') for key in ("settings", "model", "search")
        )
        check_known(strategy, settings, f'{path}, "settings" of {name}: ')
        check_types(strategy, settings, f'{path}, "settings": ')
        return cls(path, name, strategy, settings, model, search)

    def make(self, overriding: Mapping[str, Any] | None = None, also: Iterable[str] = ()) -> Strategy:
        """Construct the strategy, with settings added or replaced: `keep` replaces a `keep_ratio`, too.

        also: further names that the caller accepts, for error messages.
        """
        check_known(self.strategy_class, overriding or (), f"{self.strategy}: ", also)
        try:
            return construct(self.strategy_class, self.strategy, override(self.settings, overriding or {}))
        except SettingError as error:
            raise SettingError(f"{self.path}: {error}") from error

    def check_promise(self) -> None:
        """Raise SettingError if `tokenprune tune` did not show that these settings stay within the loss asked for."""
        if not self.search.get("promised", True):
            raise SettingError(
                f"{self.path}: a loss of at most {self.search.get('max_loss')} points was not shown for these "
                f"settings. Tune with more questions or a larger --max-loss or, to use them all the same, write "
                f"{self.path}{UNPROVEN}"
            )

    def warn_unless_made_for(self, n_layers: int) -> None:
        """Warn if the model has a different number of decoder layers than the one that the settings were found on.

        Not an error, because the budget still holds; but the settings may not be good for this model.
        """
        made_for = self.model.get("layers", n_layers)
        if made_for != n_layers:
            warnings.warn(
                f"{self.path}: found on a model of {made_for} decoder layers; this one has {n_layers}. Search again "
                f"with `tokenprune tune` or `tokenprune optimize`.",
                stacklevel=3,
            )


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingError(f"{where}: expected an object, found {value!r}.")
    return value


def _check_keys(given: Iterable[str], where: str) -> None:
    for key in given:
        if key not in KEYS:
            raise SettingError(f"{where}: {unknown('key', key, KEYS)}")
