"""LFM2-VL, whose larger images become tiles and an overview, and LFM3-VL, which takes images of any size. Both have
short convolutions between the layers with attention."""

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import Lfm2VlConfig

from helpers.families.base import BREAK, END, IMAGE, PATCH, START, ImageInputs, Size, additive, decoder, tower
from helpers.families.common import CommonFamily
from helpers.families.qwen_vl import MERGE, QwenVL

TILE = 24  # pixels of a tile's side
MOST = 64  # patches of a tile, to which all are padded


class Lfm2VL(CommonFamily):
    """Every tile has its own marker before it."""

    class_name = "Lfm2VlForConditionalGeneration"
    contract = "never seen"
    sizes = ((32, 24), (24, 48), (24, 32))  # one tile, 1 x 2 tiles and an overview, one tile

    def config(self) -> Any:
        vision = {**tower(0, num_patches=16, vision_use_head=False), "model_type": "siglip2_vision_model"}
        del vision["image_size"]
        text = decoder(
            model_type="lfm2", layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False, conv_L_cache=3
        )
        return Lfm2VlConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=IMAGE,
            projector_hidden_size=32,
            tie_word_embeddings=False,
        )

    def tiles(self, size: Size) -> list[Size]:
        height, width = size
        n_tiles = (height // TILE) * (width // TILE)
        square = PATCH * MERGE
        overview = (-(-height // 2 // square) * square, -(-width // 2 // square) * square)
        return [size] if n_tiles == 1 else [*[(TILE, TILE)] * n_tiles, overview]

    def block(self, size: Size) -> list[int]:
        """Return the IDs. If an image has several tiles, a marker before each gives its place, or marks the
        overview."""
        runs = [[IMAGE] * ((h // PATCH // MERGE) * (w // PATCH // MERGE)) for h, w in self.tiles(size)]
        if len(runs) == 1:
            return [START, *runs[0], END]
        markers = [*range(2, len(runs) + 1), BREAK]
        return [START, *(token for marker, run in zip(markers, runs, strict=True) for token in (marker, *run)), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        shapes = torch.tensor([[h // PATCH, w // PATCH] for h, w in self.tiles(size)])
        real = (torch.arange(MOST) < shapes.prod(-1, keepdim=True)).long()
        pixels = torch.randn(len(shapes), MOST, 3 * PATCH**2, generator=generator)
        return {"pixel_values": pixels, "spatial_shapes": shapes, "pixel_attention_mask": real}


class Lfm3VL(CommonFamily, QwenVL):
    """The tower also has convolutions, and the language model a layer with a sliding window, which counts dropped
    tokens. Only the convolutions are as if they had never seen them."""

    class_name = "Lfm3VlForConditionalGeneration"
    marks_steps = True
    contract = "never seen"
    volatile = ()
    window = 12

    def config(self) -> Any:
        vision = tower(
            0,
            num_key_value_heads=2,
            spatial_merge_size=MERGE,
            temporal_patch_size=2,
            layer_types=["conv", "full_attention", "conv"],
        )
        del vision["image_size"]
        text = decoder(
            model_type="lfm3",
            num_hidden_layers=3,
            head_dim=8,
            layer_types=["conv", "sliding_attention", "full_attention"],
            sliding_window=self.window,
        )
        return transformers.Lfm3VlConfig(
            vision_config=vision, text_config=text, projector_hidden_size=32, tie_word_embeddings=False, **self.tokens()
        )

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {}

    def mask_of(self, left: Tensor) -> Any:
        age = left[:, None] - left
        kinds = {"full_attention": age >= 0, "sliding_attention": (age >= 0) & (age < self.window)}
        masks = {kind: additive(seen[None], torch.ones(1, len(left)).bool()) for kind, seen in kinds.items()}
        return {**masks, "conv": None}
