"""Finds the ModelAdapter for a model: one of ours, one that was registered, or one of an installed package."""

from __future__ import annotations

import re
import sys
from collections import UserDict
from collections.abc import Callable, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from torch import nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import check_model
from tokenprune.adapters.record import RECORDS, Record
from tokenprune.adapters.refused import refusal
from tokenprune.entry_points import entry_points_of, load_entry_point, warn_of_namesakes
from tokenprune.errors import SettingError, UnsupportedError

#: The transformers versions that the tests pass on: from the first, below the second.
TRANSFORMERS_RANGE = ((5, 4), (6, 0))
#: Entry points of other distributions, each named after a transformers class.
GROUP = "tokenprune.adapters"
FAMILIES = "tokenprune.adapters.families"


class _Adapters(UserDict[str, Any]):
    """Adapters by class name. A file of `families` is imported when one of its adapters is looked up; the classes that
    it registers are read from its text."""

    def __init__(self) -> None:
        self.data = {
            name: f"{FAMILIES}.{file.stem}"
            for file in sorted(Path(__file__).with_name("families").glob("*.py"))
            for names in re.findall(
                r'^@register_adapter\(\s*((?:"\w+",?\s*)+)', file.read_text(encoding="utf-8"), re.MULTILINE
            )
            for name in re.findall(r'"(\w+)"', names)
        }

    def __getitem__(self, name: str) -> type[ModelAdapter]:
        if isinstance(module := self.data[name], str):
            import_module(module)
        return self.data[name]

    def __setitem__(self, name: str, adapter: type[ModelAdapter]) -> None:
        if self.data.get(name) != adapter.__module__:
            self.get(name)  # if its file in `families` were imported later, it would replace this adapter
        self.data[name] = adapter

    def __delitem__(self, name: str) -> None:
        self[name]  # likewise
        del self.data[name]


ADAPTERS: MutableMapping[str, type[ModelAdapter]] = _Adapters()

Adapter = TypeVar("Adapter", bound=type[ModelAdapter])


def register_adapter(*class_names: str, **facts: Any) -> Callable[[Adapter], Adapter]:
    """Register a ModelAdapter for transformers classes by name; works from any package. The last one registered for a
    name counts. `facts` are those of the classes' `Record`, for families.

    Raises SettingError for anything but names, and for a class that is not a ModelAdapter.
    """
    if not class_names or not all(isinstance(name, str) for name in class_names):
        raise SettingError(
            f"register_adapter takes the names of transformers classes, not ({', '.join(map(repr, class_names))}). "
            f'Write @register_adapter("MyLlavaForConditionalGeneration").'
        )

    def register(adapter: Adapter) -> Adapter:
        if not _is_adapter(adapter):
            raise SettingError(f"{adapter!r} is not a subclass of ModelAdapter. Derive it from ModelAdapter.")
        for name in class_names:
            ADAPTERS[name] = adapter
            if facts:
                RECORDS[name] = Record(**facts)
        return adapter

    return register


def adapter_for(model: object, adapter: object = None) -> ModelAdapter:
    """Return the adapter of a loaded model: an instance of `adapter`, or of the one registered for the model's class or
    the nearest registered class that it inherits from.

    An installed package's adapter is only imported for a class that is not registered. Warns if a package has an
    adapter for a class that has one of ours; ours is used.

    Raises SettingError if `adapter` is not an adapter class, and UnsupportedError for an unknown class, for code from
    elsewhere that has the name of one of our classes but not its parts, and outside the supported transformers
    versions.
    """
    model = check_model(model)
    names = [cls.__name__ for cls in type(model).__mro__]
    if adapter is not None:
        if not _is_adapter(adapter):
            raise SettingError(f"adapter={adapter!r} is not a subclass of ModelAdapter. Try adapter=GenericAdapter.")
        check_transformers(names[0], adapter.since)
        return adapter(model)
    installed = {} if names[0] in ADAPTERS else entry_points_of(GROUP)
    name = next((name for name in names if name in ADAPTERS or name in installed), None)
    if name is None:
        raise UnsupportedError(refusal(names, installed, full_model_class(type(model))))
    check_transformers()
    if name not in ADAPTERS:
        ADAPTERS[name] = load_entry_point(
            installed[name],
            f"the model adapter for {name}",
            _is_adapter,
            "a subclass of tokenprune.adapters.ModelAdapter",
        )
    elif _is_ours(ADAPTERS[name]):
        warn_of_namesakes(
            GROUP,
            name,
            ADAPTERS[name],
            f"a model adapter for {name}",
            lambda entry: f"For theirs, import {entry.attr} from {entry.module} and pass adapter={entry.attr}.",
        )
    check_transformers(name, ADAPTERS[name].since)
    return _instantiate(ADAPTERS[name], model, name)


def _instantiate(adapter: type[ModelAdapter], model: nn.Module, name: str) -> ModelAdapter:
    """Make the adapter that is registered for a class of this name."""
    modules = [cls.__module__ for cls in type(model).__mro__ if cls.__name__ == name]
    if not _is_ours(adapter) or any(module.startswith("transformers.") for module in modules):
        return adapter(model)
    try:
        return adapter(model)
    except (AttributeError, UnsupportedError) as error:
        raise UnsupportedError(
            f"{str(error).rstrip('.')}. This {name} is not transformers' own but that of {modules[0]}, whose parts "
            f"{adapter.__name__} may not know: load a checkpoint in transformers' format, without trust_remote_code, "
            f"or pass an adapter of your own as adapter=, see adapters/README.md."
        ) from error


def full_model_class(cls: type) -> str | None:
    """Return the registered class that transformers defines in the same module as `cls`, which is a part of it: its
    base model, its vision tower, or its language model, which AutoModelForCausalLM makes of some checkpoints."""
    beside = sys.modules.get(cls.__module__)
    places = {name: getattr(getattr(beside, name, None), "__module__", None) for name in ADAPTERS}
    return next((name for name, place in places.items() if place == cls.__module__), None)


def _is_ours(adapter: type[ModelAdapter]) -> bool:
    return adapter.__module__.startswith(f"{FAMILIES}.")


def _is_adapter(value: object) -> TypeGuard[type[ModelAdapter]]:
    return isinstance(value, type) and issubclass(value, ModelAdapter)


def check_transformers(name: str = "tokenprune", since: tuple[int, int] = TRANSFORMERS_RANGE[0]) -> None:
    """Raise UnsupportedError unless the installed transformers is in the supported range, which may begin later for the
    class of this name."""
    import transformers

    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    oldest, below = max(since, TRANSFORMERS_RANGE[0]), TRANSFORMERS_RANGE[1]
    if not oldest <= version < below:
        wanted = f">={'.'.join(map(str, oldest))},<{'.'.join(map(str, below))}"
        raise UnsupportedError(
            f"transformers {transformers.__version__} is outside the range that {name} is tested with. Type: "
            f'pip install "transformers{wanted}"'
        )
