"""What the processor attaches to an image, without an engine."""

# pyright: reportMissingImports=false

from __future__ import annotations

import random
from typing import Any

import pytest
from helpers.served.engine import needs_vllm

from tokenprune import FoPru
from tokenprune.serving.vllm.settings import Settings

pytestmark = needs_vllm


@pytest.mark.usefixtures("unchecked")
def test_images_have_different_keys_even_if_the_caller_seeds() -> None:
    """With equal keys, one image would be recorded under the other's name."""
    from vllm.multimodal.processing import PromptUpdateDetails
    from vllm.multimodal.processing.processor import ResolvedPromptUpdate, UpdateMode

    from tokenprune.serving.vllm.processing import FIELD, PrunedItem, PruningProcessor

    processor = PruningProcessor()
    processor.settings = Settings(FoPru(keep_ratio=0.25))
    update = ResolvedPromptUpdate("image", 0, UpdateMode.REPLACE, [7], PromptUpdateDetails([7] * 8))
    items: list[dict[str, Any]] = [{}, {}]
    for item in items:
        random.seed(0)
        processor._shortened(update, None, item, "image")
    first, second = (PrunedItem.read(item[FIELD].data) for item in items)
    assert first.key != second.key
    assert first.parts == second.parts == (8,)
