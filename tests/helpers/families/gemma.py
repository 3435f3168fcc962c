"""Gemma 3, whose images see all of themselves, and PaliGemma, whose whole prompt does."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SiglipVisionConfig,
)
from transformers.models.gemma3 import modeling_gemma3

from .base import BOS, END, IMAGE, NO_EMBEDS, START, Family, ImageInputs, Size, additive, decoder, tower

SIDE = 24  # pixels
#: Since transformers 5.2x, generate looks for an argument of this name, which both classes hide behind **kwargs.


class Gemma3(Family):
    """One layer with a sliding window and one without; every image has 3 x 3 visual tokens between markers."""

    class_name = "Gemma3ForConditionalGeneration"
    sizes = ((SIDE, SIDE),)
    n_visual = 9

    def __init__(self, name: str, window: int) -> None:
        super().__init__(name)
        assert window >= self.n_visual, "transformers versions differ in what an image sees beyond the window"
        self.window = window
        if takes_no_embeds(Gemma3ForConditionalGeneration):
            self.cannot["embedded"] = NO_EMBEDS
        masks: Any = getattr(modeling_gemma3, "create_masks_for_vision_model", None)
        if window < 64 and masks is not None and "sliding_layer_idx" not in masks.__code__.co_varnames:
            # Some versions size the mask of sliding layers by a layer without a window.
            self.cannot["static"] = (IndexError, "out of bounds")

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

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(1, 3, *size, generator=generator)}

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"token_type_ids": (ids == IMAGE).long()}

    def seen(self, inputs: dict[str, Any]) -> Tensor:
        visual = inputs["input_ids"] == IMAGE
        starts = visual & ~torch.nn.functional.pad(visual, (1, 0))[:, :-1]
        image = starts.cumsum(1).masked_fill(~visual, 0)
        same = (image[:, :, None] == image[:, None]) & visual[:, None]
        return super().seen(inputs) | same

    def mask(self, inputs: dict[str, Any], dropped: Tensor) -> Any:
        columns = torch.arange(dropped.shape[1])
        near = columns[:, None] - columns < self.window
        keys = inputs["attention_mask"].bool() & ~dropped
        seen = self.seen(inputs)
        return {"full_attention": additive(seen, keys), "sliding_attention": additive(seen & near, keys)}


class PaliGemma(Family):
    """Images come first, with 6 x 6 visual tokens; position IDs start at 1; answers are causal."""

    class_name = "PaliGemmaForConditionalGeneration"
    sizes = ((SIDE, SIDE),)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if takes_no_embeds(PaliGemmaForConditionalGeneration):
            self.cannot["embedded"] = NO_EMBEDS
        if "_update_model_kwargs_for_generation" not in vars(PaliGemmaForConditionalGeneration):
            # Older versions treat answers as part of the prompt, which attends to all of itself.
            self.cannot["uncached"] = (AssertionError, "logits differ")

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

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
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


def takes_no_embeds(model_class: Any) -> bool:
    """Return whether generate refuses inputs_embeds, because it looks for the argument's name."""
    return "inputs_embeds" not in signature(model_class.prepare_inputs_for_generation).parameters
