"""Fixtures of the tests with vLLM, whose environment does not need the other tests' model families, and skips of
families that this vLLM lacks."""

from collections.abc import Sequence
from pathlib import Path

import pytest

import helpers.served.engine  # noqa: F401  # isort: skip - before anything imports Triton, which it sets to interpret
from helpers.served.families import FAMILIES
from helpers.served.family import Family
from helpers.served.stored import save
from helpers.unchecked import unchecked as unchecked

from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.releases import reason_of_lack


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA, which tests must not change."""
    folder = tmp_path_factory.mktemp("llava")
    save("llava-clip", folder)
    return folder


BY_NAME = {family.name: family for family in FAMILIES}


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip tests with a parameter that is a family, or a family's name, whose models this vLLM lacks."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        for one in [] if callspec is None else callspec.params.values():
            family = BY_NAME.get(one) if isinstance(one, str) else one
            if isinstance(family, Family) and (reason := reason_of_lack(ARCHITECTURES[family.architecture])):
                item.add_marker(pytest.mark.skip(reason=reason))
