"""What `import tokenprune` and the command's help load, and what that costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tokenprune

ROOT = Path(__file__).resolve().parents[2]


def in_a_new_process(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def loaded(code: str) -> set[str]:
    """The modules that a process has loaded after it ran `code`."""
    listing = "import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint('loaded', *sys.modules)"
    return set(in_a_new_process(listing.format(code=code)).splitlines()[-1].split()[1:])


def test_every_public_name_has_one_home() -> None:
    """The imports that type checkers read, and the table that is used at run time, say the same."""
    tree = ast.parse((ROOT / "tokenprune" / "__init__.py").read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == tokenprune._HOMES
    assert sorted(tokenprune.__all__) == sorted(imported)
    for name, module in imported.items():
        assert getattr(tokenprune, name) is getattr(import_module(str(module)), name)


def test_no_public_name_is_a_modules() -> None:
    """Importing a module sets an attribute of its package, which would then hide the public name."""
    modules = {path.stem for path in (ROOT / "tokenprune").iterdir()}
    assert not modules & set(tokenprune.__all__)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="module 'tokenprune' has no attribute 'Fopru'"):
        tokenprune.Fopru  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    assert set(tokenprune.__all__) <= set(dir(tokenprune))


def test_importing_the_package_alone_does_not_load_torch() -> None:
    assert not {"torch", "numpy", "tokenprune.patching"} & loaded("import tokenprune")
