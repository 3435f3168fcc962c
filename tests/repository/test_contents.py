"""Contents of packages' docstrings, versions, and what the hosting needs."""

import ast
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import tomli
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import tokenprune
from tokenprune.adapters.registry import TRANSFORMERS_RANGE

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


# The declared minimum versions agree with those that `make test-oldest` installs and those that patch() accepts.


PROJECT: dict[str, Any] = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def requirements() -> list[Requirement]:
    """Return the requirements of the library and its extras, except on itself and on vLLM, which pins torch and so
    needs its own environment."""
    extras = [extra for name, extra in PROJECT["optional-dependencies"].items() if name != "vllm"]
    found = [Requirement(line) for line in [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def bounds(requirement: Requirement) -> dict[str, Version]:
    return {specifier.operator: Version(specifier.version) for specifier in requirement.specifier}


def test_the_oldest_versions_are_the_declared_ones() -> None:
    lines = (ROOT / "tests/oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    del pins["torchvision"]  # depends on torch's version
    declared = {(one.name, bounds(one)[">="]) for one in requirements() if ">=" in bounds(one)}
    assert {(name, Version(pin)) for name, pin in pins.items()} == declared


def test_the_oldest_python_is_the_declared_one() -> None:
    (lowest,) = re.findall(r"^OLDEST_PYTHON \?= python(\S+)$", MAKEFILE, re.M)
    assert PROJECT["requires-python"] == f">={lowest}"


def test_patch_accepts_the_declared_transformers() -> None:
    (declared,) = (bounds(one) for one in requirements() if one.name == "transformers")
    oldest, below = (bound.release[:2] for bound in (declared[">="], declared["<"]))
    assert (oldest, (*below, 0)[:2]) == TRANSFORMERS_RANGE
    assert oldest <= Version(version("transformers")).release[:2] < TRANSFORMERS_RANGE[1]


def test_the_tests_that_the_makefile_names_exist() -> None:
    """A renamed file would end `make test-oldest` before its first test."""
    named = set(re.findall(r"(?<![\w/.-])tests/[\w/.-]+", MAKEFILE))
    assert "tests/contract" in named
    assert not [path for path in sorted(named) if not (ROOT / path).exists()]


# What a host of repositories reads: citation, issue forms, its CI and the hooks before a commit.


FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_citation_says_what_the_package_says() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["authors"] == PROJECT["authors"]
    assert (citation["abstract"], citation["license"]) == (PROJECT["description"], PROJECT["license"])
    heading = f"## {citation['version']} ({citation['date-released']})"  # the changelog's newest
    released = re.findall(r"^## \d.*", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert (citation["version"], heading) == (tokenprune.__version__, released[0])


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_complete(path: Path) -> None:
    """GitHub shows no form that lacks one of these, and says nothing."""
    form = read(path)
    assert form["name"]
    assert form["description"]
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
    for field in form["body"]:
        assert field["attributes"]["label"]
        assert (field["type"] in ("dropdown", "checkboxes")) == ("options" in field["attributes"])


def test_hooks_and_hosted_ci_run_what_we_run() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    entries = {" ".join(hook["entry"].split()[:2]) for hook in repository["hooks"]}
    assert entries == {".venv/bin/ruff check", ".venv/bin/ruff format"}
    (job,) = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"].values()
    assert job["steps"][-1] == {"run": "bash .ci/run"}
