"""The names of strategies: this package's, those that were registered, and those of installed packages.

A strategy is known by its registered name, `fopru`, or by where its class is, `my_package.my_module:MyStrategy`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tokenprune.errors import SettingError, UnsupportedError, unknown
from tokenprune.strategy import Strategy

#: Entry points of other distributions, each named like the strategy that it points to.
GROUP = "tokenprune.strategies"
#: The classes of all registered names.
STRATEGIES: dict[str, type[Strategy]] = {}

StrategyClass = TypeVar("StrategyClass", bound=type[Strategy])


def register_strategy(name: str) -> Callable[[StrategyClass], StrategyClass]:
    """Give a strategy class the name by which `patch`, settings files and every command know it.

        @register_strategy("norm")
        @dataclass(frozen=True)
        class Norm(ScoreStrategy): ...

    Raises SettingError for a name that another class has, or that could not be told from a module or a file.
    """
    if not re.fullmatch(r"[A-Za-z_][\w-]*", name):
        raise SettingError(f"{name!r} cannot name a strategy. Use letters, digits, - and _, such as 'norm'.")

    def register(cls: StrategyClass) -> StrategyClass:
        owner = STRATEGIES.get(name, cls)
        if (owner.__module__, owner.__qualname__) != (cls.__module__, cls.__qualname__):  # a class may be reloaded
            raise SettingError(
                f"the strategy name {name!r} belongs to {owner.__module__}:{owner.__qualname__}. Register "
                f"{cls.__qualname__} under another name."
            )
        STRATEGIES[name] = _checked_class(cls, name)
        return cls

    return register


def make(name: str, **settings: Any) -> Strategy:
    """The strategy of a registered name or of a class written `my_package.my_module:MyStrategy`.

        make("fopru", keep_ratio=0.25, layer=-2)

    Raises SettingError for an unknown name and for a setting that cannot be right.
    """
    return construct(strategy_class(name), name, settings)


def strategy_class(name: object, also: Iterable[str] = ()) -> type[Strategy]:
    """The class of a strategy by its registered name or by `my_package.my_module:MyStrategy`.

    Installed packages are searched, and the one in question imported, only for a name that is not registered.

    also: other names that the caller accepts, for the error message. Raises SettingError for an unknown name, and
    UnsupportedError for an installed package whose strategy cannot be loaded.
    """
    if isinstance(name, str) and ":" in name:
        return _imported(name)
    if isinstance(name, str) and name in STRATEGIES:
        return STRATEGIES[name]
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not isinstance(name, str) or name not in installed:
        raise SettingError(unknown("strategy", name, {*STRATEGIES, *installed, *also}))
    return _loaded(installed[name])


def construct(cls: type[Strategy], name: str, settings: Mapping[str, Any], also: Iterable[str] = ()) -> Strategy:
    """A strategy of a class with these settings.

    name: the class as the user wrote it. also: other names that the caller accepts, for the error message. Raises
    SettingError for an unknown or a missing setting, and what the class itself raises.
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


def check_known(cls: type[Strategy], names: Iterable[str], where: str, also: Iterable[str] = ()) -> None:
    """Raise SettingError, its message after `where`, unless the class has settings of all these names."""
    known = [field.name for field in fields(cls) if field.init]
    for name in names:
        if name not in known:
            undecorated = name in vars(cls).get("__annotations__", {}) and "__dataclass_params__" not in vars(cls)
            hint = f" Decorate {cls.__name__} with @dataclass(frozen=True)." if undecorated else ""
            raise SettingError(f"{where}{unknown('setting', name, [*known, *also])}{hint}")


def check_types(cls: type[Strategy], settings: Mapping[str, Any], where: str) -> None:
    """Raise SettingError, its message after `where` and the setting's name, unless every value is of its type.

    For values that were read from text or a file. A value whose type cannot be told is left to the class.
    """
    hints = setting_types(cls)
    for name, value in settings.items():
        hint = hints.get(name, Any)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise SettingError(f"{where}{unknown(name, value, map(str, get_args(hint)))}")
        if not _fits(value, hint):
            raise SettingError(f"{where}{name}={value!r} is not of type {_type_name(hint)}.")


def setting_types(cls: type[Strategy]) -> dict[str, Any]:
    """The annotated type of each setting; none if the annotations name what only a type checker imports."""
    try:
        return get_type_hints(cls)
    except NameError:
        return {}


def _imported(name: str) -> type[Strategy]:
    """The class that `my_package.my_module:MyStrategy` says."""
    module_name, _, class_name = name.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever the module's own code raises
        raise SettingError(
            f"strategy {name!r}: {module_name} cannot be imported ({type(error).__name__}: {error}). Install the "
            f"package, or put the folder that contains it on PYTHONPATH."
        ) from error
    if not hasattr(module, class_name):
        own = (key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, Strategy))
        raise SettingError(f"strategy {name!r}: {unknown(f'class of {module_name}', class_name, own)}")
    return _checked_class(getattr(module, class_name), name)


def _loaded(entry: EntryPoint) -> type[Strategy]:
    """The class of an installed package, which is registered now. Raises UnsupportedError if it is broken."""
    package = entry.dist.name if entry.dist is not None else "a package"
    try:
        cls = _checked_class(entry.load(), entry.value)
    except Exception as error:  # whatever the package's own code raises
        raise UnsupportedError(
            f"{package} brings the strategy {entry.name!r}, and {entry.value} cannot be loaded: {error!r}. Update or "
            f"uninstall {package}."
        ) from error
    return STRATEGIES.setdefault(entry.name, cls)


def _checked_class(cls: Any, name: str) -> type[Strategy]:
    if not (isinstance(cls, type) and issubclass(cls, Strategy)):
        raise SettingError(
            f"strategy {name!r}: {getattr(cls, '__name__', cls)} is not a subclass of tokenprune.Strategy. Derive it "
            f"from Strategy or ScoreStrategy."
        )
    return cls


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type. true is not a number, and 1 is a float."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint in (Any, object) or get_origin(hint) is not None or not isinstance(hint, type):
        return True  # what a container holds is for the strategy to check
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
