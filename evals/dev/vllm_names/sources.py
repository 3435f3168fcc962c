"""The sources of a vLLM release, read without importing them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import ZipFile

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class Place:
    """Something that a module defines."""

    module: str
    node: ast.AST


class Sources:
    """A release, in a folder that contains the package or in a wheel.

    read: returns the text of a file by its path in the release, None if there is no such file.
    """

    def __init__(self, read: Callable[[str], str | None]) -> None:
        self._read = read
        self.tree = lru_cache(maxsize=None)(self._tree)

    @classmethod
    def of_folder(cls, folder: Path) -> Sources:
        return cls(lambda path: (folder / path).read_text() if (folder / path).is_file() else None)

    @classmethod
    def of_wheel(cls, wheel: Path) -> Sources:
        archive = ZipFile(wheel)
        names = frozenset(archive.namelist())
        return cls(lambda path: archive.read(path).decode() if path in names else None)

    def find(self, module: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> Place | None:
        """Return what `from module import name` would import; None if there is no such name."""
        if (module, name) in seen:
            return None
        seen |= {(module, name)}
        tree = self.tree(module)
        if tree is None:
            return None
        for node in _statements(tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.name == "*" and (place := self.find(self._absolute(module, node), name, seen)) is not None:
                        return place
                    if name == (alias.asname or alias.name):
                        place = self.find(self._absolute(module, node), alias.name, seen)
                        return place or Place(module, node)
            elif name in _defined(node):
                return Place(module, node)
        if (lazy := self._lazily(tree, module, name)) is not None:
            return self.find(*lazy, seen)
        submodule = self.tree(f"{module}.{name}")
        return None if submodule is None else Place(f"{module}.{name}", submodule)

    def lineage(self, place: Place) -> Iterator[tuple[str, ast.ClassDef]]:
        """Yield a class and its base classes, with their modules. Bases outside of vLLM are left out."""
        if isinstance(place.node, ast.ClassDef):
            yield place.module, place.node
            for base in place.node.bases:
                parent = self.resolve(place.module, base)
                if parent is not None:
                    yield from self.lineage(parent)

    def resolve(self, module: str, expression: ast.expr) -> Place | None:
        """Return what an expression in a module stands for: a name, possibly dotted or with an index."""
        if isinstance(expression, ast.Subscript):
            return self.resolve(module, expression.value)
        if isinstance(expression, ast.Attribute):
            owner = self.resolve(module, expression.value)
            return self.find(owner.module, expression.attr) if owner and isinstance(owner.node, ast.Module) else None
        return self.find(module, expression.id) if isinstance(expression, ast.Name) else None

    def method(self, place: Place, name: str) -> Function | None:
        """Return a class's own or inherited method."""
        for _, cls in self.lineage(place):
            for node in cls.body:
                if isinstance(node, Function) and node.name == name:
                    return node
        return None

    def members(self, module: str) -> frozenset[str]:
        """Return the names of all classes in a module, of their fields and methods, and of attributes of `self`, but
        not of local variables and of attributes of others, which other modules define."""
        tree = self.tree(module)
        if tree is None:
            return frozenset()
        owners = (node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef)))
        names = {name for owner in owners for node in _statements(owner) for name in _defined(node)}
        attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
        stored = (ast.unparse(node).split(".") for node in attributes if isinstance(node.ctx, ast.Store))
        return frozenset(names | {target[1] for target in stored if target[0] == "self"})

    def _tree(self, module: str) -> ast.Module | None:
        path = module.replace(".", "/")
        text = self._read(f"{path}.py")
        text = self._read(f"{path}/__init__.py") if text is None else text
        return None if text is None else ast.parse(text)

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        is_package = self._read(f"{module.replace('.', '/')}/__init__.py") is not None
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + is_package]
        return ".".join([*parts, *([node.module] if node.module else [])])

    @staticmethod
    def _lazily(tree: ast.Module, module: str, name: str) -> tuple[str, str] | None:
        """Find a name that vLLM's package imports lazily: {"LLM": ".entrypoints.llm:LLM"}."""
        for node in tree.body:
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            if isinstance(value, ast.Dict):
                for key, place in zip(value.keys, value.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == name and isinstance(place, ast.Constant):
                        home, colon, member = str(place.value).partition(":")
                        if colon and home.startswith("."):
                            return f"{module}{home}", member
        return None


def _statements(tree: ast.Module | ast.ClassDef) -> Iterator[ast.stmt]:
    """Yield the statements of a module or class, with those inside `if` and `try`."""
    waiting: list[ast.AST] = list(reversed(tree.body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        if isinstance(node, (ast.If, ast.Try, ast.ExceptHandler, ast.With)):
            waiting += reversed(list(ast.iter_child_nodes(node)))


def _defined(node: ast.AST) -> list[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return [node.name]
    if isinstance(node, ast.Import):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
