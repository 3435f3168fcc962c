"""Names of strategies: built in, registered by the user, and from installed packages.

A strategy is identified by its registered name, `fopru`, or by its class, `my_package.my_module:MyStrategy`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from importlib import import_module
from inspect import get_annotations, isabstract
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tokenprune.entry_points import entry_points_of, load_entry_point, warn_of_namesakes
from tokenprune.errors import SettingError, alike, unknown
from tokenprune.strategy import Strategy
from tokenprune.user_classes import UserClasses

#: The entry-point group of other distributions; an entry point has the name of its strategy.
GROUP = "tokenprune.strategies"
#: The name, in settings files, of several strategies in sequence. Not registered, as it names no strategy of its own.
COMPOSE, COMPOSE_CLASS = "compose", "tokenprune.strategies.compose:Compose"
#: Registered name -> class.
STRATEGIES: dict[str, type[Strategy]] = {}

_CLASSES = UserClasses(
    "strategy", Strategy, "a subclass of tokenprune.Strategy. Derive it from Strategy or ScoreStrategy."
)

StrategyClass = TypeVar("StrategyClass", bound=type[Strategy])


def register_strategy(name: str) -> Callable[[StrategyClass], StrategyClass]:
    """Register a strategy class under the name that `patch`, settings files and every command accept.

        @register_strategy("norm")
        @dataclass(frozen=True)
        class Norm(ScoreStrategy): ...

    Raises SettingError for a name that another class has, or that looks like a module or a file.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w-]*", name):
        raise SettingError(
            f"{name!r} cannot name a strategy. Use letters, digits, - and _: @register_strategy('norm')."
        )

    def register(cls: StrategyClass) -> StrategyClass:
        owner = STRATEGIES.get(name, cls)
        if (owner.__module__, owner.__qualname__) != (cls.__module__, cls.__qualname__):  # a class may be reloaded
            raise SettingError(
                f"the strategy name {name!r} belongs to {owner.__module__}:{owner.__qualname__}. Register "
                f"{cls.__qualname__} under another name."
            )
        STRATEGIES[name] = _CLASSES.checked(cls, name)
        return cls

    return register


def make(name: str, **settings: Any) -> Strategy:
    """Make a strategy from a registered name or a class written `my_package.my_module:MyStrategy`.

        make("fopru", keep_ratio=0.25, layer=-2)

    Raises SettingError for an unknown name or an invalid setting.
    """
    return construct(strategy_class(name), name, settings)


def strategy_class(name: object, also: Iterable[str] = ()) -> type[Strategy]:
    """Find the class of a strategy by its registered name or by `my_package.my_module:MyStrategy`.

    An installed package's entry point is loaded only for a name that is not registered. Warns if it has a built-in
    strategy's name, which stays ours.

    also: further names that the caller accepts, for error messages.

    Raises SettingError for an unknown name, and UnsupportedError for an installed package whose strategy cannot be
    loaded.
    """
    if isinstance(name, str) and ":" in name:
        return _CLASSES.find(name)
    if isinstance(name, str) and (name in STRATEGIES or name == COMPOSE):
        cls = STRATEGIES[name] if name in STRATEGIES else _CLASSES.find(COMPOSE_CLASS)
        if cls.__module__.startswith("tokenprune."):
            warn_of_namesakes(
                GROUP, name, cls, f"a strategy {name!r}", lambda entry: f"For theirs, write {entry.value!r}."
            )
        return cls
    installed = entry_points_of(GROUP)
    if not isinstance(name, str) or name not in installed:
        raise SettingError(_unregistered_hint(name) or _unknown_strategy(name, {*STRATEGIES, *installed, *also}))
    wanted = "a subclass of tokenprune.Strategy"
    return STRATEGIES.setdefault(
        name, load_entry_point(installed[name], f"the strategy {name!r}", _CLASSES.fits, wanted)
    )


def _unregistered_hint(name: object) -> str | None:
    """The hint for a public class without a registered name, because few models can be pruned with it."""
    module = import_module("tokenprune")
    for public in module.__all__:
        if not alike(public, str(name)):
            continue
        value = getattr(module, public)
        if _CLASSES.fits(value) and value not in STRATEGIES.values():
            return f"{public} has no short name. Write 'tokenprune:{public}', or in Python tokenprune.{public}(...)."
    return None


def _unknown_strategy(name: object, known: Collection[str]) -> str:
    """The message for an unknown name, in particular for a known one with something after it."""
    first, *others = re.split(r"[\s,=]+", str(name))
    if others and first in known:
        pair = f"{first}+{others[0]}", f"{first} {others[0]}"
        several = f"; several in sequence as {pair[0]}, or to compare them {pair[1]}" if others[0] in known else ""
        return f"unknown strategy {name!r}. Write settings after a colon: {first}:key=value,key=value{several}."
    said = unknown("strategy", name, known)
    return said if "Did you mean" in said else f"{said} A class of your own is written my_module:MyStrategy."


def construct(cls: type[Strategy], name: str, settings: Mapping[str, Any], also: Iterable[str] = ()) -> Strategy:
    """Construct a strategy from its class and settings.

    name: the class as the user wrote it.
    also: further names that the caller accepts, for error messages.

    Raises SettingError for an unknown or missing setting, and whatever the class itself raises.
    """
    check_known(cls, settings, f"{name}: ", also)
    if isabstract(cls):
        raise SettingError(
            f"{name}: {cls.__name__} is a base class. Use a class that defines "
            f"{', '.join(sorted(cls.__abstractmethods__))}."
        )
    missing = [
        field.name
        for field in fields(cls)
        if field.init and field.default is MISSING and field.default_factory is MISSING and field.name not in settings
    ]
    if missing:
        raise SettingError(f"{name}: no {', '.join(missing)}. Add {missing[0]}=...")
    return cls(**settings)


def override(settings: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with some added or replaced. A budget also replaces one of the other kind: keep=64 replaces
    keep_ratio."""
    budgets = ("keep_ratio", "keep")
    replaced = budgets if any(by.get(name) is not None for name in budgets) else ()
    return {name: value for name, value in settings.items() if name not in replaced} | dict(by)


def check_known(cls: type[Strategy], names: Iterable[str], where: str, also: Iterable[str] = ()) -> None:
    """Raise SettingError with a message prefixed by `where` unless the class has settings of all these names."""
    known = [field.name for field in fields(cls) if field.init]
    for name in names:
        if name not in known:
            undecorated = name in get_annotations(cls) and "__dataclass_params__" not in vars(cls)
            hint = f" Decorate {cls.__name__} with @dataclass(frozen=True)." if undecorated else ""
            raise SettingError(f"{where}{unknown('setting', name, [*known, *also])}{hint}")


def check_types(cls: type[Strategy], settings: Mapping[str, Any], where: str) -> None:
    """Raise SettingError with a message prefixed by `where` unless every value has its setting's type.

    For values read from text or a file. Values of types that cannot be checked here are left to the class.
    """
    hints = setting_types(cls)
    for name, value in settings.items():
        hint = hints.get(name, Any)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise SettingError(f"{where}{unknown(name, value, map(str, get_args(hint)))}")
        if not _fits(value, hint):
            raise SettingError(f"{where}{name}={value!r} is not of type {_type_name(hint)}.")


def name_of(cls: type[Strategy]) -> str:
    """Return the name by which `make` finds a class: its registered name, or `my_package.my_module:MyStrategy`."""
    names = [name for name, known in STRATEGIES.items() if known is cls]
    own = f"{cls.__module__}:{cls.__qualname__}"
    return names[0] if names else COMPOSE if own == COMPOSE_CLASS else own


def settings_of(strategy: Strategy) -> dict[str, Any]:
    """Return all settings, which with `name_of` make an equal strategy; dataclasses in them become dictionaries."""
    return {field.name: _as_data(getattr(strategy, field.name)) for field in fields(strategy) if field.init}


def _as_data(value: Any) -> Any:
    if isinstance(value, Strategy):
        return settings_of(value)
    if isinstance(value, tuple):
        return tuple(map(_as_data, value))
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def changed_settings(strategy: Strategy) -> dict[str, Any]:
    """Return the settings that differ from their defaults, which with `name_of` make an equal strategy. Strategies in
    them become strings for `parse`."""
    values = {field.name: (getattr(strategy, field.name), field.default) for field in fields(strategy) if field.init}
    return {name: _with_texts(value) for name, (value, default) in values.items() if value != default}


def _with_texts(value: Any) -> Any:
    """Replace strategies in a tuple by strings."""
    if not isinstance(value, tuple) or not any(isinstance(step, Strategy) for step in value):
        return value
    texts = []
    for step in value:
        name, settings = name_of(type(step)), [f"{key}={setting!r}" for key, setting in changed_settings(step).items()]
        texts.append(name + ("," if ":" in name else ":") + ",".join(settings) if settings else name)
    return texts


def setting_types(cls: type[Strategy]) -> dict[str, Any]:
    """Return the annotated type of each setting; empty if annotations use names that only a type checker imports."""
    try:
        return get_type_hints(cls)
    except NameError:
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value has an annotated type. A bool is not a number, and 1 is a float."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint in (Any, object) or get_origin(hint) is not None or not isinstance(hint, type):
        return True  # the strategy checks the contents of containers
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
