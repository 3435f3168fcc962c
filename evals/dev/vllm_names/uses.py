"""What a file of the plug-in uses of vLLM, and which of that a release lacks.

A release is compared with one on which our tests pass: a method that overrides one of vLLM's there, but none in the
release, would never be called.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenprune.evals.dev.vllm_names.sources import Function, Place, Sources

#: Modules whose classes the plug-in gets as arguments, without importing them.
CONFIGS = (
    "cache",
    "compilation",
    "device",
    "lora",
    "model",
    "multimodal",
    "parallel",
    "scheduler",
    "speculative",
    "vllm",
)


@dataclass(frozen=True)
class Use:
    """A class of ours, or an import, with the vLLM name that it stands for."""

    module: str
    name: str
    line: int


class File:
    """A file of the plug-in."""

    def __init__(self, path: Path) -> None:
        self.path, self.tree = path, ast.parse(path.read_text(encoding="utf-8"))
        self.imported = {
            alias.asname or alias.name: Use(node.module or "", alias.name, node.lineno)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and _is_vllm(node.module)
            for alias in node.names
        }

    def missing(self, known: Sources, release: Sources) -> list[str]:
        """Return a line for everything that the known release has and the other lacks."""
        uses = [*self._imports(release), *self._attributes(release), *self._classes(known, release)]
        uses += [*self._calls(release), *self._members(known, release)]
        return [f"{self.path.name}{line}" for line in dict.fromkeys(uses)]

    def _imports(self, release: Sources) -> Iterator[str]:
        for use in self.imported.values():
            if release.find(use.module, use.name) is None:
                yield f", line {use.line}: {use.module} has no {use.name}"

    def _attributes(self, release: Sources) -> Iterator[str]:
        """Yield missing attributes of modules: `base.LlavaProcessor`, where `base` is a module."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = self._place(node.value, release)
                is_module = owner is not None and isinstance(owner.node, ast.Module)
                if owner and is_module and release.find(owner.module, node.attr) is None:
                    yield f", line {node.lineno}: {owner.module} has no {node.attr}"

    def _classes(self, known: Sources, release: Sources) -> Iterator[str]:
        """Yield methods that no longer override vLLM's as before, and missing ones that are called on `super()` or
        self."""
        for cls in (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)):
            before = [place for base in cls.bases if (place := self._place(base, known))]
            after = [place for base in cls.bases if (place := self._place(base, release))]
            own = [node for node in cls.body if isinstance(node, Function)]
            for method in own:
                if _method(before, method.name, known) is None:
                    continue
                now = _method(after, method.name, release)
                if now is None:
                    yield f", line {method.lineno}: {cls.name}.{method.name} no longer overrides anything"
                elif (reason := _differs(method, now)) is not None:
                    yield f", line {method.lineno}: {cls.name}.{method.name}: {reason}"
            called = {name: line for name, line in _called(cls) if _method(before, name, known)}
            for name, line in called.items():
                if _method(after, name, release) is None:
                    yield f", line {line}: the bases of {cls.name} have no method {name}"

    def _calls(self, release: Sources) -> Iterator[str]:
        """Yield missing parameters of vLLM's functions and classes that we pass by keyword."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and (place := self._place(node.func, release)) is not None:
                accepted = _accepted(place, release)
                for keyword in node.keywords:
                    if keyword.arg is not None and accepted is not None and keyword.arg not in accepted:
                        yield f", line {node.lineno}: {ast.unparse(node.func)} has no parameter {keyword.arg}"

    def _members(self, known: Sources, release: Sources) -> Iterator[str]:
        """Yield names used after a dot that a module of `known` has as members, and the release's no longer has."""
        modules = {use.module for use in self.imported.values()} | {f"vllm.config.{name}" for name in CONFIGS}
        used = {node.attr: node.lineno for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)}
        for module in sorted(modules):
            for name in sorted(used.keys() & known.members(module) - release.members(module)):
                yield f", line {used[name]}: {module} has no member {name} any more"

    def _place(self, expression: ast.expr, sources: Sources) -> Place | None:
        if isinstance(expression, ast.Attribute):
            owner = self._place(expression.value, sources)
            return sources.find(owner.module, expression.attr) if owner and isinstance(owner.node, ast.Module) else None
        use = self.imported.get(expression.id) if isinstance(expression, ast.Name) else None
        return None if use is None else sources.find(use.module, use.name)


def _is_vllm(module: str | None) -> bool:
    return module is not None and (module == "vllm" or module.startswith("vllm."))


def _method(bases: list[Place], name: str, sources: Sources) -> Function | None:
    return next((method for base in bases if (method := sources.method(base, name)) is not None), None)


def _called(cls: ast.ClassDef) -> Iterator[tuple[str, int]]:
    """Yield the names that methods look up on `super()` and `self`, with their lines."""
    for node in ast.walk(cls):
        if isinstance(node, ast.Attribute):
            owner = node.value
            is_super = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
            if is_super or (isinstance(owner, ast.Name) and owner.id == "self"):
                yield node.attr, node.lineno


def _parameters(function: Function) -> list[str]:
    return [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]


def _differs(ours: Function, theirs: Function) -> str | None:
    """Return why our method cannot be called like theirs; None if it can."""
    if ours.args.vararg is None and ours.args.kwarg is None:
        missing = [name for name in (*_parameters(theirs), *(arg.arg for arg in theirs.args.kwonlyargs))
                   if name not in {*_parameters(ours), *(arg.arg for arg in ours.args.kwonlyargs)}]  # fmt: skip
        if missing:
            return f"vLLM's has {', '.join(missing)} too"
    shared = [name for name in _parameters(theirs) if name in _parameters(ours)]
    if shared != [name for name in _parameters(ours) if name in shared]:
        return f"vLLM's order is {', '.join(_parameters(theirs))}"
    n_defaults = len(ours.args.defaults)
    required = _parameters(ours)[: len(_parameters(ours)) - n_defaults]
    more = [
        name for name in required if name not in (*_parameters(theirs), *(arg.arg for arg in theirs.args.kwonlyargs))
    ]
    return f"vLLM's has no {', '.join(more)}" if more and theirs.args.kwarg is None else None


def _accepted(place: Place, sources: Sources) -> set[str] | None:
    """Return the keywords that a function or class accepts; None if it accepts any, or if that is unknown."""
    node = place.node
    if isinstance(node, ast.ClassDef):
        function = sources.method(place, "__init__")
        if function is None:
            lineage = [cls for _, cls in sources.lineage(place)]
            names = {node.target.id for cls in lineage for node in cls.body
                     if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}  # fmt: skip
            return names or None
        node = function
    if not isinstance(node, Function) or node.args.kwarg is not None:
        return None
    return {*_parameters(node), *(arg.arg for arg in node.args.kwonlyargs)}
