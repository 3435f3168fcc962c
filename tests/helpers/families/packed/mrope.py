"""Common code of families with position IDs of three components."""

from typing import Any

from torch import Tensor

from helpers.families.base import Family
from helpers.families.common import CommonFamily
from helpers.families.qwen_vl import QwenVL


class MRope(CommonFamily, QwenVL):
    """Images and videos as in Qwen-VL, with the common oracle."""

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return position IDs for embeddings: without token IDs, transformers does not find the images, and counts
        columns."""
        return Family.position_ids(self, model, inputs).expand(3, -1, -1)
