"""Fixtures that several test files share."""

from __future__ import annotations

from typing import Any

import pytest

from tiny import tiny_llava


@pytest.fixture(scope="session")
def shared_llava() -> Any:
    """One CLIP LLaVA for the whole session; tests that patch it also remove the patch."""
    return tiny_llava("clip")


@pytest.fixture
def llava(shared_llava: Any) -> Any:
    """The shared model, and a check that the test left no hook on it."""
    yield shared_llava
    for module in shared_llava.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
