"""A fixture for quanto, whose C++ kernel takes a minute to compile on a new machine."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor


@pytest.fixture
def quanto_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the kernel's only function."""
    from optimum.quanto.library.extensions import get_extension

    monkeypatch.setattr(get_extension("quanto_cpp"), "_lib", SimpleNamespace(unpack=_unpack))


def _unpack(packed: Tensor, bits: int) -> Tensor:
    """Return the numbers packed in bytes: first the lowest bits of all bytes, then the next ones."""
    return torch.cat([packed >> shift & 2**bits - 1 for shift in range(0, 8, bits)])
