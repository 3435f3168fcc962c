"""Emu3 and Apertus 1.5, whose visual tokens are codes that the language model itself embeds, and Fuyu, which embeds the
pixels of patches."""

from typing import Any

import torch
import transformers
from transformers import Emu3Config, Emu3TextConfig, Emu3VQVAEConfig, FuyuConfig, PersimmonConfig

from helpers.families.base import BREAK, END, IMAGE, START, ImageInputs, Size, decoder
from helpers.families.common import CommonFamily
from helpers.families.llava import Llava
from helpers.families.mistral3 import Mistral3, padded

#: The first code in the vocabulary, after the text tokens, and the number of codes.
CODES, N_CODES = 96, 16


class Emu3(CommonFamily, Mistral3):
    """One code per 4 x 4 pixels, and one after each row."""

    class_name = "Emu3ForConditionalGeneration"
    token = 4
    sizes = ((12, 16), (20, 8), (16, 16))

    def config(self) -> Any:
        names = {f"<|visual token {i:06d}|>": CODES + i for i in range(N_CODES)}
        codes = Emu3VQVAEConfig(
            codebook_size=N_CODES,
            base_channels=32,
            channel_multiplier=[1, 1, 1],
            num_res_blocks=1,
            hidden_size=32,
            attn_resolutions=[2],
        )
        text = decoder(attention_dropout=0.0)
        text["vocab_size"] = CODES + N_CODES
        return Emu3Config(
            vq_config=codes,
            text_config=Emu3TextConfig(**text),
            vocabulary_map={"<image>": IMAGE, "<|extra_200|>": BREAK, **names},
        )

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * (size[0] // self.token * (size[1] // self.token + 1)), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        """Return an image that is padded, which its codes depend on, like all others."""
        return padded(super().image_inputs(size, generator), 20, 16)

    def build(self, attention: Any = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        model = super().build(attention, seed, n_layers)
        model.generation_config.suppress_tokens += list(range(CODES, CODES + N_CODES))
        return model


class Apertus1p5(CommonFamily, Mistral3):
    """One code per 4 x 4 pixels; row markers are text."""

    class_name = "Apertus1p5ForConditionalGeneration"
    eager_tower = True
    token = 4
    sizes = ((12, 16), (20, 8), (16, 16))

    def config(self) -> Any:
        text = decoder(rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
        text["vocab_size"] = CODES + N_CODES + 16
        vision = {
            "codebook_size": N_CODES,
            "embed_dim": 8,
            "latent_channels": 8,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [4],
            "resolution": 16,
        }
        audio = {
            "model_type": "wavtokenizer_encoder",
            "num_filters": 4,
            "upsampling_ratios": [2],
            "num_lstm_layers": 1,
            "hidden_size": 16,
            "codebook_size": 16,
            "codebook_dim": 16,
        }
        return transformers.Apertus1p5Config(
            text_config=transformers.Apertus1p5TextConfig(**text),
            vision_config=vision,
            audio_config=audio,
            image_token_id=IMAGE,
            audio_token_id=89,
            image_token_offset=CODES,
            audio_token_offset=CODES + N_CODES,
        )


class Fuyu(CommonFamily, Llava):
    """No tower: each patch is a row of pixels and a visual token. The patches of all images are concatenated."""

    class_name = "FuyuForCausalLM"
    sizes = ((12, 16), (20, 8), (16, 16))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # transformers repeats the prompt, but not the patches.
        self.cannot["sampled"] = self.cannot["beams"] = (ValueError, "features and image tokens do not match")

    def config(self) -> Any:
        text = PersimmonConfig(**decoder(qk_layernorm=True, partial_rotary_factor=0.5))
        return FuyuConfig(text_config=text, patch_size=4, num_channels=3, image_token_id=IMAGE)

    def block(self, size: Size) -> list[int]:
        return [*([IMAGE] * (size[1] // 4) + [BREAK]) * (size[0] // 4), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(size[0] * size[1] // 16, 48, generator=generator)}
