"""What families with position IDs of three components share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from helpers.families.base import Family
from helpers.families.common import CommonFamily
from helpers.families.qwen_vl import QwenVL


class MRope(CommonFamily, QwenVL):
    """Images and videos as Qwen-VL takes them, and the common oracle."""

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Without IDs of tokens HF does not find the images, and counts columns."""
        return Family.position_ids(self, model, inputs).expand(3, -1, -1)
