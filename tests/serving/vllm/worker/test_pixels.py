"""Pixels that arrive as bytes, because the vision tower normalises them: strategies see them as the tower does."""

# pyright: reportMissingImports=false

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.served.engine import needs_vllm
from torch import Tensor

pytestmark = needs_vllm
BYTES = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)


def halves(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    return (pixels / 127.5 - 1).to(dtype)


@pytest.mark.parametrize("norms", [True, False])
def test_pixels(norms: bool) -> None:
    """Up to vLLM 0.33, the processors of these models normalise them."""
    from tokenprune.serving.vllm.models.gemma3 import PrunedGemma3
    from tokenprune.serving.vllm.models.gemma4 import PrunedGemma4
    from tokenprune.serving.vllm.models.nemotron import PrunedNemotron

    image = BYTES if norms else halves(BYTES, torch.float32)
    norm: dict[str, Any] = {"input_norm": halves} if norms else {}
    gemma3: Any = SimpleNamespace(vision_tower=SimpleNamespace(vision_model=SimpleNamespace(**norm)))
    nemotron: Any = SimpleNamespace(**norm)
    gemma4: Any = SimpleNamespace(**{f"vision_{name}": one for name, one in norm.items()})
    seen = halves(BYTES, torch.float32)
    assert torch.equal(PrunedGemma3.normed(gemma3, image), seen)
    assert torch.equal(PrunedNemotron.normed(nemotron, image), seen)
    assert torch.equal(PrunedGemma4.rescaled(gemma4, image.reshape(4, 12)), seen.reshape(4, 12))
