"""Gemma 3n: streams of hidden states, embeddings of every layer, and shared keys, after a convolutional tower."""

from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from transformers import AutoModel, Gemma3nConfig
from transformers.modeling_outputs import BaseModelOutput

from .base import END, EOS, IMAGE, START, VOCAB, ImageInputs, Size, decoder
from .common import CommonFamily

SIDE = 24  # pixels
N_VISUAL = 9


class Convolution(nn.Module):
    """Stands in for the published tower, which needs timm."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 32, SIDE // 3, SIDE // 3)

    def forward(self, pixel_values: Tensor, **settings: Any) -> Any:
        return BaseModelOutput(last_hidden_state=self.layer(pixel_values))


class Gemma3n(CommonFamily):
    """vision: the stand-in for the vision tower; None for the published one."""

    class_name = "Gemma3nForConditionalGeneration"
    vision: Any = Convolution
    sizes = ((SIDE, SIDE),)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # Embeddings alone do not determine what each layer adds for a token.
        self.cannot["embedded"] = (AssertionError, "logits differ")

    def config(self) -> Any:
        text = decoder(
            num_hidden_layers=4,
            head_dim=8,
            layer_types=["sliding_attention", "full_attention"] * 2,
            sliding_window=12,
            num_kv_shared_layers=2,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=IMAGE,
            altup_num_inputs=2,
            laurel_rank=4,
            activation_sparsity_pattern=[0.5, 0.0, 0.0, 0.0],
        )
        return Gemma3nConfig(
            text_config=text,
            vision_config={"hidden_size": 32, "vocab_offset": IMAGE, "vocab_size": VOCAB - IMAGE},
            audio_config={"hidden_size": 32, "vocab_offset": VOCAB, "vocab_size": 2},
            vision_soft_tokens_per_image=N_VISUAL,
            image_token_id=IMAGE,
            boi_token_id=START,
            eoi_token_id=END,
            audio_token_id=EOS,
        )

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        """Return a model without the audio tower, and with a stand-in for the vision tower."""
        make = AutoModel.from_config
        others: dict[str, Any] = {"gemma3n_vision": self.vision, "gemma3n_audio": nn.Identity}

        def from_config(config: Any, **settings: Any) -> Any:
            kind = others.get(config.model_type)
            return make(config, **settings) if kind is None else kind()

        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(AutoModel, "from_config", from_config))
            return super().build(attention, seed, n_layers)

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * N_VISUAL, END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(1, 3, *size, generator=generator)}

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"token_type_ids": (ids == IMAGE).long()}
