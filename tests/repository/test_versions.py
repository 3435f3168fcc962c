"""The declared minimum versions agree with those that `make test-oldest` installs and those that patch() accepts."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli
from packaging.requirements import Requirement
from packaging.version import Version

from tokenprune.adapters.registry import TRANSFORMERS_RANGE

ROOT = Path(__file__).parents[2]
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
