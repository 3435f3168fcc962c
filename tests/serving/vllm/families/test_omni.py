"""Images of Qwen2.5-Omni that were encoded elsewhere: vLLM 0.32 treats them as images of one visual token each."""

# pyright: reportMissingImports=false

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from helpers.served.engine import needs_vllm

pytestmark = needs_vllm


def test_images_that_were_encoded_elsewhere() -> None:
    from tokenprune.serving.vllm.models.qwen_omni import PrunedQwen2_5Omni

    model: Any = object.__new__(PrunedQwen2_5Omni)
    model.config = SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2))
    model.visual = SimpleNamespace(dtype=torch.float32, spatial_merge_size=2)
    grids, features = torch.tensor([[1, 2, 4], [1, 4, 4]]), torch.randn(6, 8)
    found = model._process_image_input({"type": "image_embeds", "image_embeds": features, "image_grid_thw": grids})
    assert [len(one) for one in found] == [2, 4]
    assert torch.equal(torch.cat(list(found)), features)
