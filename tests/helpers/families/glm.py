"""GLM-4.1V and its successors: a frame of a video is written with the placeholder tokens of an image."""

from typing import Any

from torch import Tensor

from .base import BREAK, IMAGE, Family, Size
from .packed import VIDEO_END, VIDEO_START
from .qwen_vl import MRope
from .ties import softplus_for_relu


class Glm4v(MRope):
    """Positions rotate neighbouring pairs of numbers in half of each head. GLM-4.5V has experts in its second layer,
    GLM-OCR's tower normalises its queries and keys, and GLM-GA is GLM-4.6V's class with another configuration."""

    mixes = False

    def block(self, size: Size) -> list[int]:
        frame, timestamp = super().block(size[-2:]), BREAK
        return [VIDEO_START, *[*frame, timestamp] * self.grid(size)[0], VIDEO_END] if len(size) == 3 else frame

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        in_video = (ids == VIDEO_START).cumsum(1) > (ids == VIDEO_END).cumsum(1)
        return {"mm_token_type_ids": ((ids == IMAGE) * (1 + in_video.int())).int()}

    def repeats_rows(self) -> bool:
        return False


class Glm5Next(Glm4v):
    """One layer with a state, and two that attend to two pools of 4 keys and the incomplete last one; the second uses
    the pools that the first has chosen. No layer uses positions."""

    contract = "never seen"
    volatile = ()
    numbered = False

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        from transformers.models.glm5_next import modeling_glm5_next

        softplus_for_relu(modeling_glm5_next)
        return super().build(attention, seed, n_layers)

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        return Family.position_ids(self, model, inputs)
