"""Gemma 3, whose pictures see all of themselves, and PaliGemma, whose whole prompt does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    PaliGemmaConfig,
    SiglipVisionConfig,
)

from .base import BOS, END, IMAGE, START, Family, Picture, Size, additive, decoder, tower

SIDE = 24  # pixels


class Gemma3(Family):
    """A layer with a sliding window and one without; every picture is 3 x 3 visual tokens between markers."""

    class_name = "Gemma3ForConditionalGeneration"
    sizes = ((SIDE, SIDE),)
    n_visual = 9

    def __init__(self, name: str, window: int) -> None:
        super().__init__(name)
        assert window >= self.n_visual, "transformers versions differ in what a picture sees beyond the window"
        self.window = window

    def config(self) -> Any:
        text = Gemma3TextConfig(
            **decoder(head_dim=8),
            query_pre_attn_scalar=8,
            sliding_window=self.window,
            layer_types=["sliding_attention", "full_attention"],
        )
        return Gemma3Config(
            vision_config=SiglipVisionConfig(**tower(SIDE)),
            text_config=text,
            mm_tokens_per_image=self.n_visual,
            image_token_index=IMAGE,
            boi_token_index=START,
            eoi_token_index=END,
        )

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * self.n_visual, END]

    def picture(self, size: Size, generator: torch.Generator) -> Picture:
        return {"pixel_values": torch.randn(1, 3, *size, generator=generator)}

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"token_type_ids": (ids == IMAGE).long()}

    def seen(self, inputs: dict[str, Any]) -> Tensor:
        visual = inputs["input_ids"] == IMAGE
        starts = visual & ~torch.nn.functional.pad(visual, (1, 0))[:, :-1]
        picture = starts.cumsum(1).masked_fill(~visual, 0)
        same = (picture[:, :, None] == picture[:, None]) & visual[:, None]
        return super().seen(inputs) | same

    def mask(self, inputs: dict[str, Any], dropped: Tensor) -> Any:
        columns = torch.arange(dropped.shape[1])
        near = columns[:, None] - columns < self.window
        keys = inputs["attention_mask"].bool() & ~dropped
        seen = self.seen(inputs)
        return {"full_attention": additive(seen, keys), "sliding_attention": additive(seen & near, keys)}


class PaliGemma(Family):
    """Pictures come first and are 6 x 6 visual tokens; position IDs start at 1; answers are causal."""

    class_name = "PaliGemmaForConditionalGeneration"
    sizes = ((SIDE, SIDE),)

    def config(self) -> Any:
        return PaliGemmaConfig(
            vision_config=SiglipVisionConfig(**tower(SIDE)),
            text_config=GemmaConfig(**decoder(head_dim=8)),
            image_token_index=IMAGE,
            projection_dim=32,
            hidden_size=32,
            vocab_size=96,
        )

    def block(self, size: Size) -> list[int]:
        return [*[IMAGE] * 36, BOS]

    def picture(self, size: Size, generator: torch.Generator) -> Picture:
        return {"pixel_values": torch.randn(1, 3, *size, generator=generator)}

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"token_type_ids": torch.zeros_like(ids)}

    def answer_types(self, types: Tensor) -> Tensor:
        return torch.ones_like(types)

    def position_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        return super().position_ids(model, inputs) + 1

    def seen(self, inputs: dict[str, Any]) -> Tensor:
        prefix = inputs["token_type_ids"] == 0
        return super().seen(inputs) | (prefix[:, :, None] & prefix[:, None])
