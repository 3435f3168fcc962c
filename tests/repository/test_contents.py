"""The docstring of a package lists its modules, one line each, so that a reader finds the right one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"^(\w+(?:, \w+)*) {2,}\S", re.MULTILINE)
#: Packages of more modules list them.
FEW = 4
#: Packages that say what they hold in another way: their README, or a list of members of one kind.
WITHOUT = {
    "tokenprune",
    "evals",
    "evals/cli",
    "evals/tasks",
    "adapters/families",
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
    if not any(parent.is_symlink() for parent in path.parents) and ROOT / "evals" / "dev" not in path.parents
)


def modules_of(package: str) -> set[str]:
    """The modules and packages in a package that have something in them."""
    folder = ROOT / package
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    return modules | {path.parent.name for path in folder.glob("*/__init__.py") if not path.parent.is_symlink()}


def listed_in(package: str) -> list[str]:
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return [name for names in LINE.findall(text) for name in names.split(", ")]


@pytest.mark.parametrize("package", [package for package in PACKAGES if package not in WITHOUT])
def test_a_package_lists_its_modules(package: str) -> None:
    listed, modules = listed_in(package), modules_of(package)
    if listed or len(modules) > FEW:
        assert sorted(listed) == sorted(modules), f"write one line for each module in {package}/__init__.py"


def test_what_needs_no_list_exists() -> None:
    assert set(PACKAGES) >= WITHOUT
