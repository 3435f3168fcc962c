"""Gemma 3, whose images see all of themselves, PaliGemma, whose whole prompt does, and Gemma 3n."""

from inspect import signature
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from transformers import AutoModel, Gemma3ForConditionalGeneration, PaliGemmaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.gemma3 import modeling_gemma3

from .base import BOS, DIFFER, END, IMAGE, NO_EMBEDS, START, Family, ImageInputs, Size, additive
from .common import CommonFamily

SIDE = 24  # pixels
N_VISUAL = 9


class OneImage(Family):
    """Square images of one size."""

    sizes = ((SIDE, SIDE),)

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(1, 3, *size, generator=generator)}


class Gemma3(OneImage):
    """One layer with a sliding window and one without; every image has 3 x 3 visual tokens between markers."""

    def __init__(self, name: str, window: int | None = None) -> None:
        super().__init__(name)
        self.window: int = window or self.stored["text_config"]["sliding_window"]
        assert self.window >= N_VISUAL, "transformers versions differ in what an image sees beyond the window"
        if takes_no_embeds(Gemma3ForConditionalGeneration):
            self.cannot["embedded"] = NO_EMBEDS
        masks: Any = getattr(modeling_gemma3, "create_masks_for_vision_model", None)
        if self.window < 64 and masks is not None and "sliding_layer_idx" not in masks.__code__.co_varnames:
            # Some versions size the mask of sliding layers by a layer without a window.
            self.cannot["static"] = (IndexError, "out of bounds")

    def config(self) -> Any:
        config = super().config()
        config.text_config.sliding_window = self.window
        return config

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * N_VISUAL, END]

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


class PaliGemma(OneImage):
    """Images come first, with 6 x 6 visual tokens; position IDs start at 1; answers are causal."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if takes_no_embeds(PaliGemmaForConditionalGeneration):
            self.cannot["embedded"] = NO_EMBEDS
        if "_update_model_kwargs_for_generation" not in vars(PaliGemmaForConditionalGeneration):
            # Older versions treat answers as part of the prompt, which attends to all of itself.
            self.cannot["uncached"] = DIFFER

    def block(self, size: Size) -> list[int]:
        return [*[IMAGE] * 36, BOS]

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


class Convolution(nn.Module):
    """Stands in for the published tower, which needs timm."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 32, SIDE // 3, SIDE // 3)

    def forward(self, pixel_values: Tensor, **settings: Any) -> Any:
        return BaseModelOutput(last_hidden_state=self.layer(pixel_values))


class Gemma3n(CommonFamily, OneImage):
    """Streams of hidden states, embeddings of every layer, and shared keys, after a convolutional tower.

    vision: the stand-in for the vision tower; None for the published one.
    """

    vision: Any = Convolution

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # Embeddings alone do not determine what each layer adds for a token.
        self.cannot["embedded"] = DIFFER

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        """Return a model without the audio tower, and with a stand-in for the vision tower."""
        make = AutoModel.from_config
        others: dict[str, Any] = {"gemma3n_vision": self.vision, "gemma3n_audio": nn.Identity}

        def from_config(config: Any, **settings: Any) -> Any:
            kind = others.get(config.model_type)
            return make(config, **settings) if kind is None else kind()

        with mock.patch.object(AutoModel, "from_config", from_config):
            return super().build(attention, seed, n_layers)

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * N_VISUAL, END]

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"token_type_ids": (ids == IMAGE).long()}
