"""Readers find the right file and can read it in one go: packages list their modules, and files are short."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"^(\w+(?:, \w+)*) {2,}\S", re.MULTILINE)
#: The maximum number of lines of a Python file.
LONGEST = 300
#: Packages that describe their contents differently: in a README, or as a list of members of one kind.
WITHOUT = {
    "evals/tasks",
    "adapters/families",
    "tokenprune/serving/vllm/architectures/families",
    "tokenprune/serving/vllm/models",
    *(
        f"tokenprune/strategies/{place}"
        for place in ("baselines", "in_llm", "in_tower", "pre_llm", "pre_tower", "video")
    ),
}
PACKAGES = sorted(
    str(path.parent.relative_to(ROOT))
    for folder in ("tokenprune", "adapters", "evals")
    for path in (ROOT / folder).rglob("__init__.py")
    if not any(parent.is_symlink() for parent in path.parents)
)


def modules_of(package: str) -> set[str]:
    """Return the modules and packages in a package that are not empty."""
    folder = ROOT / package
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    return modules | {path.parent.name for path in folder.glob("*/__init__.py") if not path.parent.is_symlink()}


def listed_in(package: str) -> list[str]:
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return [name for names in LINE.findall(text) for name in names.split(", ")]


@pytest.mark.parametrize("package", [package for package in PACKAGES if package not in WITHOUT])
def test_a_package_lists_its_modules(package: str) -> None:
    """One line per module, except for the only module of a package."""
    listed, modules = listed_in(package), modules_of(package)
    if listed or len(modules) > 1:
        assert sorted(listed) == sorted(modules), f"write one line for each module in {package}/__init__.py"


def test_what_needs_no_list_exists() -> None:
    assert set(PACKAGES) >= WITHOUT


def test_files_are_short() -> None:
    folders = ("tokenprune", "adapters", "evals", "tests", "demos")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {name: length for name, length in lengths.items() if length > LONGEST}
