"""HunyuanOCR: newline tokens among the visual tokens, and position IDs of four components."""

from typing import Any

import torch
from torch import Tensor
from transformers import HunYuanVLConfig

from helpers.families.base import END, IMAGE, PATCH, START, ImageInputs, Size, decoder, tower
from helpers.families.packed.mrope import MRope
from helpers.families.qwen_vl import MERGE


class HunyuanVL(MRope):
    """An image has a token before it, one after each row, and one at its end. Images are numbered across the batch."""

    class_name = "HunYuanVLForConditionalGeneration"
    video_sizes = ()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cannot["rows"] = (AssertionError, "logits differ")

    def config(self) -> Any:
        vision = tower(0, num_channels=3, spatial_merge_size=MERGE, max_image_size=8 * PATCH, out_hidden_size=32)
        del vision["image_size"]
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 1, 1]}
        text = decoder(rope_parameters=rope, head_dim=8)
        tokens: Any = {"image_token_id": IMAGE, "im_start_id": START, "im_end_id": END}
        return HunYuanVLConfig(vision_config=vision, text_config=text, tie_word_embeddings=False, **tokens)

    def grid(self, size: Size) -> list[int]:
        return [1, *(side // PATCH for side in size)]

    def block(self, size: Size) -> list[int]:
        _, h, w = self.grid(size)
        return [START, *[IMAGE] * (h // MERGE * (w // MERGE + 1) + 2), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        grid = torch.tensor([self.grid(size)])
        return {
            "pixel_values": torch.randn(int(grid.prod()), 3 * PATCH**2, generator=generator),
            "image_grid_thw": grid,
        }

    def position_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        ids = super().position_ids(model, inputs)
        return ids if ids.ndim == 3 else ids.expand(4, -1, -1)  # only text

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        return super().embedded_ids(model, inputs)[:1].expand(4, -1, -1)

    def repeated_ids(self, model: Any, inputs: dict[str, Any], answers: Tensor) -> Tensor:
        """Return position IDs, for which images are numbered before the batch is repeated."""
        n = len(answers) // len(inputs["input_ids"])
        return self.position_ids(model, self.continued(inputs, answers[::n])).repeat_interleave(n, 1)
