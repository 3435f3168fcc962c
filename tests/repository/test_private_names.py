"""Private names, and annotations."""

import ast
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from tokenprune.selection.selection import budget, n_reaching
from tokenprune.sequence.packing import inverse

ROOT = Path(__file__).parents[2]
#: Folder -> the package of its modules. Inner folders come before outer ones.
FOLDERS = {
    "tests/helpers": "helpers",
    "tests": "tests",
    "tokenprune": "tokenprune",
    "adapters": "tokenprune.adapters",
    "evals": "tokenprune.evals",
}


def module_of(file: str) -> str:
    folder = next(folder for folder in FOLDERS if file.startswith(f"{folder}/"))
    parts = Path(file).relative_to(folder).with_suffix("").parts
    return ".".join((FOLDERS[folder], *parts)).removesuffix(".__init__")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def imported(tree: ast.AST) -> dict[str, str]:
    """Return the names that imports of this repository's modules define: local name -> full name."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}
    return {name: full for name, full in found.items() if full.startswith(("helpers.", "tests.", "tokenprune."))}


def borrowed(module: str, source: str) -> Iterator[str]:
    """Yield the private names that a module imports from elsewhere, or accesses on its imports."""
    tree = ast.parse(source)
    names = imported(tree)
    for full in names.values():
        parts = full.split(".")
        owners = [".".join(parts[:place]) for place, part in enumerate(parts) if is_private(part)]
        if not all(f"{module}.".startswith(f"{owner}.") for owner in owners):
            yield full
    if module.startswith("tests."):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and isinstance(node.value, ast.Name):
            yield from [f"{names[node.value.id]}.{node.attr}"] if node.value.id in names else []


def test_private_names_stay_where_they_are() -> None:
    paths = [path for folder in ("tokenprune", "adapters", "evals", "tests") for path in (ROOT / folder).rglob("*.py")]
    files = [str(path.relative_to(ROOT)) for path in paths]
    files = [file for file in files if not file.startswith(("tokenprune/adapters/", "tokenprune/evals/"))]  # links
    found = {file: list(borrowed(module_of(file), (ROOT / file).read_text(encoding="utf-8"))) for file in files}
    assert not {file: names for file, names in found.items() if names}


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("tokenprune.zoom", "from tokenprune.engine._parts import cut", ["tokenprune.engine._parts.cut"]),
        ("tokenprune.engine.cache", "from tokenprune.engine._parts import cut", []),
        ("tokenprune.engine.cache", "from tokenprune.engine.call import _state", ["tokenprune.engine.call._state"]),
        ("tokenprune.zoom", "from tokenprune.engine import call\ncall._state", ["tokenprune.engine.call._state"]),
        ("tests.zoom.test_zoom", "from tokenprune.engine import call\ncall._state", []),
        ("tests.zoom.test_zoom", "from tokenprune.engine.call import _state", ["tokenprune.engine.call._state"]),
        ("tokenprune.zoom", "from torch._C import _x\nfrom __future__ import annotations", []),
    ],
)
def test_what_counts_as_borrowed(module: str, source: str, found: list[str]) -> None:
    assert list(borrowed(module, source)) == found


# Tests check the annotations of every call in `tokenprune`, unlike users' processes.


def test_a_tensor_has_the_shape_of_its_annotation() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'scores'"):
        n_reaching(torch.ones(2, 3), 0.5)
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'valid'"):
        inverse(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool), 5)


def test_other_arguments_have_their_type() -> None:
    wrong: int = 36.0  # pyright: ignore[reportAssignmentType]
    with pytest.raises(BeartypeCallHintViolation, match="n_visual"):
        budget(wrong, 0.25, None)


@pytest.mark.usefixtures("unchecked")
def test_unchecked_turns_both_off() -> None:
    wrong: int = 36.0  # pyright: ignore[reportAssignmentType]
    assert budget(wrong, 0.25, None) == 9
    assert n_reaching(torch.ones(1, 4), 0.5) == 1
