"""What a host of repositories reads: citation, issue forms, its CI and the hooks before a commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomli
import yaml

import tokenprune

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
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
