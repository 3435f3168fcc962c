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


def test_an_item_says_what_is_asked() -> None:
    from vllm.multimodal.inputs import (  # pyright: ignore[reportMissingImports]
        MultiModalFeatureSpec,
        MultiModalKwargsItem,
        PlaceholderRange,
    )

    from tokenprune.errors import PruningError
    from tokenprune.serving.vllm.processing import FIELD, PrunedItem

    def feature(data: Any, modality: str = "image") -> Any:
        return MultiModalFeatureSpec(data, modality, "name", PlaceholderRange(0, 9))

    several = (
        PrunedItem((36,), None, 2**53 - 1),
        PrunedItem((576, 300, 2), 0.1, 3),
        PrunedItem((9,), None, 3, ((3, 2**17), (7, 0))),
    )
    for item in several:
        assert PrunedItem.read(item.element().data) == item
        assert PrunedItem.of(feature(MultiModalKwargsItem({FIELD: item.element()})), ["image"]) == item
    assert PrunedItem.of(feature(None, "video"), ["image"]) is None
    for modality in ("image", "video"):
        with pytest.raises(PruningError, match=f"vLLM lost the data that tokenprune attached to one {modality}"):
            PrunedItem.of(feature(None, modality), ["image", "video"])
