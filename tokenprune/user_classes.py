"""Classes of the user's own modules, written `my_package.my_module:MyClass`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from inspect import isabstract
from pathlib import PurePath
from typing import Any, Generic, TypeGuard, TypeVar

from tokenprune.errors import SettingError, unknown, user_location

B = TypeVar("B")


@dataclass(frozen=True)
class UserClasses(Generic[B]):
    """Classes of one kind. kind: what errors call them. base: what they derive from. advice: what to type instead of a
    class that doesn't."""

    kind: str
    base: type[B]
    advice: str

    def find(self, name: str) -> type[B]:
        """Import the class written `my_package.my_module:MyClass`. SettingError, which says what to do, if it cannot be
        imported or is of another kind."""
        module_name, _, class_name = name.partition(":")
        where = f"{self.kind} {name!r}"
        if "/" in module_name or module_name.endswith(".py"):
            dotted = ".".join(PurePath(module_name.removesuffix(".py")).parts)
            raise SettingError(f"{where}: {module_name} is a file. Write its module: {dotted}:{class_name}")
        try:
            module = import_module(module_name)
        except Exception as error:  # the module's own code may raise anything
            said = f"{where}: {module_name} cannot be imported ({type(error).__name__}: {error})."
            place = None if isinstance(error, ModuleNotFoundError) else user_location(error)
            install = "Install the package, or put the folder that contains it on PYTHONPATH."
            raise SettingError(f"{said} {f'Correct {place}.' if place else install}") from error
        if not hasattr(module, class_name):
            bases = self.base.__module__.rpartition(".")[0]
            classes = {key: value for key, value in vars(module).items() if self.fits(value) and not isabstract(value)}
            own = (key for key, value in classes.items() if value.__module__.rpartition(".")[0] != bases)
            raise SettingError(f"{where}: {unknown(f'class of {module_name}', class_name, own)}")
        return self.checked(getattr(module, class_name), name)

    def fits(self, cls: object) -> TypeGuard[type[B]]:
        return isinstance(cls, type) and issubclass(cls, self.base)

    def checked(self, cls: Any, name: str) -> type[B]:
        """Return the class. SettingError, naming it as the user wrote it, if it is of another kind."""
        if not self.fits(cls):
            raise SettingError(f"{self.kind} {name!r}: {getattr(cls, '__name__', cls)} is not {self.advice}")
        return cls
