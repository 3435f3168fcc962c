"""Inkling, and Inkling 2 with and without loops: relative positions in attention, and short convolutions. In Inkling 2,
residual connections span blocks."""

from typing import Any

import torch
import transformers

from helpers.families.base import END, EOS, IMAGE, START, VOCAB, ImageInputs, Size, decoder
from helpers.families.common import CommonFamily

PIXELS = 8  # per side of a visual token


class Inkling2(CommonFamily):
    """Grids count visual tokens, and pixels are one square per token. No images of several frames."""

    class_name = "Inkling2ForConditionalGeneration"
    contract = "never seen"
    numbered = False
    sizes = ((32, 32), (48, 32), (24, 40))  # 4 x 4, 6 x 4 and 3 x 5 visual tokens

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # Distances count the filled slots, but a static cache returns all of its keys.
        self.cannot["static"] = ((RuntimeError, KeyError), "must match the size|(sliding|full)_attention")

    def build(self, attention: Any = "eager", seed: int = 0, n_layers: int | None = None) -> Any:
        return super().build("eager", seed, n_layers)

    def settings(self) -> dict[str, Any]:
        text = decoder(
            num_hidden_layers=4,
            head_dim=8,
            swa_num_attention_heads=4,
            swa_num_key_value_heads=2,
            swa_head_dim=8,
            sliding_window_size=12,
            d_rel=4,
            rel_extent=16,
            layer_types=["hybrid_sliding", "hybrid", "hybrid_sliding", "hybrid"],
            moe_intermediate_size=24,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_layers_per_attn_res_block=2,
            unpadded_vocab_size=VOCAB,
        )
        vision = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "mlp_ratio": 1.5,
            "patch_size": 4,
            "posemb_grid_size": 8,
            "projection_hidden_dim": 32,
            "text_hidden_size": 32,
        }
        return {"text_config": text, "vision_config": vision, "image_token_id": IMAGE}

    def config(self) -> Any:
        return transformers.Inkling2Config(**self.settings())

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * (size[0] // PIXELS * (size[1] // PIXELS)), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        grid = [1, size[0] // PIXELS, size[1] // PIXELS]
        pixels = torch.randn(grid[1] * grid[2], PIXELS, PIXELS, 3, generator=generator)
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([grid])}


class Inkling2Loop(Inkling2):
    """The last two of the decoder's four layers run twice."""

    class_name = "Inkling2LoopForConditionalGeneration"

    def config(self) -> Any:
        settings = self.settings()
        settings["text_config"] |= {
            "loop_layer_index_start": 2,
            "loop_layer_index_end": 4,
            "loop_num_passes": 2,
            "loop_gate_rank": 4,
        }
        settings["vision_config"]["model_type"] = "inkling2_vision"
        return transformers.Inkling2LoopConfig(**settings)


class Inkling(Inkling2):
    """Without grids, and with an audio tower that tests do not use. Squares are given in two frames."""

    class_name = "InklingForConditionalGeneration"

    def config(self) -> Any:
        text = {**self.settings()["text_config"], "mlp_layer_types": ["dense", "sparse"] * 2, "n_shared_experts": 1}
        del text["n_layers_per_attn_res_block"]
        vision = {"text_hidden_size": 32, "patch_size": PIXELS, "num_hidden_layers": 5, "hidden_size": 32}
        audio = {"text_hidden_size": 32, "n_mel_bins": 4, "mel_vocab_size": 8}
        return transformers.InklingConfig(
            text_config=text, vision_config=vision, audio_config=audio, image_token_id=IMAGE, audio_token_id=EOS
        )

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        n_squares = size[0] // PIXELS * (size[1] // PIXELS)
        return {"pixel_values": torch.randn(n_squares, 2, PIXELS, PIXELS, 3, generator=generator)}
