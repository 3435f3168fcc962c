"""Requests that split an image into crops, of which vLLM's Aria silently encodes the first only."""

# pyright: reportMissingImports=false

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from helpers.served.engine import needs_vllm

from tokenprune.errors import SettingError

pytestmark = needs_vllm


@pytest.mark.parametrize("options", [{"split_image": True}, {"images_kwargs": {"split_image": True}}])
def test_images_that_are_split(options: dict[str, Any]) -> None:
    from tokenprune.serving.vllm.models.aria import AriaProcessor

    asked: Any = SimpleNamespace()
    with pytest.raises(SettingError, match=r"split_image cuts an image into crops.+Leave it out"):
        AriaProcessor._get_mm_fields_config(asked, {}, options)
