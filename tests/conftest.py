"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest
from tiny import tiny_llava


@pytest.fixture(scope="session")
def shared_llava() -> Any:
    """One CLIP LLaVA for the whole session; tests that patch it also remove the patch."""
    return tiny_llava("clip")


@pytest.fixture
def llava(shared_llava: Any) -> Any:
    """The shared model, and a check that the test left none of our hooks on it."""
    yield shared_llava
    for module in shared_llava.modules():
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            assert not getattr(hook, "__module__", "").startswith("tokenprune"), f"{hook} is still there"


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations are not checked, as in a user's process: wrong values must meet our own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
