"""Modules that cannot be imported by name: scripts, and files of other packages."""

import importlib.util
from pathlib import Path
from types import ModuleType


def module_at(path: Path, name: str | None = None) -> ModuleType:
    """Run the file as a module called `name`, by default the file's name."""
    spec = importlib.util.spec_from_file_location(name or path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
