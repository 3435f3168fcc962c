"""Llama 4: square tiles with separators between them, and an overview at the end; most layers attend within chunks."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Llama4Config

from .base import (
    BREAK,
    DIFFER,
    ENCODES_FIRST,
    END,
    IMAGE,
    PIXELS_OR_EMBEDS,
    RECENT,
    START,
    ImageInputs,
    Size,
    decoder,
    tower,
)
from .common import CommonFamily

TILE = 24  # pixels
PER_TILE = 9
#: Markers: between the tiles of a row, and after a row.
BESIDE, BELOW = 87, 88


class Llama4(CommonFamily):
    """The first layer attends within chunks; the second attends to everything, does not rotate, and has experts."""

    class_name = "Llama4ForConditionalGeneration"
    sizes = ((1, 1), (2, 1), (1, 1))  # tiles

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # generate repeats features that the model does not read, or pixels of other rows.
        wrong = (ValueError, "features and image tokens do not match")
        self.cannot["sampled"] = self.cannot["beams"] = wrong if ENCODES_FIRST else DIFFER
        if not RECENT:
            self.cannot["embedded"] = PIXELS_OR_EMBEDS

    def config(self) -> Any:
        text = decoder(
            intermediate_size_mlp=48,
            head_dim=8,
            no_rope_layers=[1, 0] * 2,
            layer_types=["chunked_attention", "full_attention"],
            attention_chunk_size=16,
            moe_layers=[1],
            num_local_experts=4,
        )
        vision = {
            **tower(TILE),
            "intermediate_size": 128,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        }
        return Llama4Config(
            vision_config=vision, text_config=text, image_token_index=IMAGE, boi_token_index=START, eoi_token_index=END
        )

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        """Return a model that works around transformers 5.24.0, which reads a missing attribute of an output."""
        model = super().build(attention, seed, n_layers)
        model.language_model.register_forward_hook(add_image_outputs)
        return model

    def embedded_ids(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return position IDs for embeddings: the model takes no images with them; generate encodes images before."""
        return self.position_ids(model, inputs)

    def n_tiles(self, size: Size) -> int:
        return 1 if size == (1, 1) else size[0] * size[1] + 1

    def block(self, size: Size) -> list[int]:
        rows, columns = size
        tile, overview = [IMAGE] * PER_TILE, BREAK
        row = [*tile, *[BESIDE, *tile] * (columns - 1), BELOW]
        return [START, *(row * rows if rows * columns > 1 else []), overview, *tile, END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(self.n_tiles(size), 3, TILE, TILE, generator=generator)}


def add_image_outputs(module: nn.Module, args: Any, output: Any) -> None:
    """Add the attribute that transformers reads and that is missing."""
    if not hasattr(output, "image_outputs"):
        output.image_outputs = None
