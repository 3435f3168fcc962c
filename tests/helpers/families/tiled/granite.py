"""Granite 4 Vision, whose features enter between decoder layers, and Granite Docling, which adds further features
there."""

from typing import Any

import torch
from transformers import (
    Granite4VisionConfig,
    Granite4VisionTextConfig,
    GraniteDoclingConfig,
    GraniteDoclingTextConfig,
    GraniteDoclingVisionConfig,
    SiglipVisionConfig,
)

from helpers.families.base import BREAK, IMAGE, PATCH, START, ImageInputs, Size, decoder, tower
from helpers.families.common import CommonFamily
from helpers.families.idefics import OVERVIEW, TILE, Idefics3, n_tiles
from helpers.families.llava_next import LlavaNext, get_anyres_image_grid_shape, unpad_image
from tokenprune import PruningError

FIRST_TILE, ROW_END = 80, BREAK


class Granite4Vision(CommonFamily, LlavaNext):
    """Half as many visual tokens as patches in each direction. Features enter before decoder layers 0 and 1, in six
    parts."""

    class_name = "Granite4VisionForConditionalGeneration"
    tile = 16  # 2 x 2 visual tokens
    pinpoints = ((1, 2), (2, 1), (2, 2))
    sizes = ((16, 24), (12, 30), (30, 16))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # transformers repeats every image separately, which mixes up the images of a row.
        self.cannot["sampled"] = self.cannot["beams"] = (AssertionError, "differ")
        self.cannot["loop"] = ((KeyError, PruningError), "cache")  # the model itself makes no cache

    def config(self) -> Any:
        # The query transformer has one head per 64 of the tower's width.
        vision = {**tower(self.tile), "hidden_size": 64, "vision_use_head": False}
        text = Granite4VisionTextConfig(**decoder(), embedding_multiplier=1.5, residual_multiplier=0.5)
        config: Any = Granite4VisionConfig(
            vision_config=SiglipVisionConfig(**vision),
            text_config=text,
            image_token_index=IMAGE,
            image_grid_pinpoints=self.resolutions(),
            vision_feature_select_strategy="full",
            downsample_rate="1/2",
            deepstack_layer_map=[[-1, 0], [-2, 1]],
            spatial_target_layers=[0, 1, 0, 1],
            projector_dropout=0.0,
        )
        config.qformer_config.intermediate_size = 48
        return config

    def unpadded(self, size: Size) -> tuple[int, int]:
        side = self.tile // PATCH // 2
        rows, columns = get_anyres_image_grid_shape(size, self.resolutions(), self.tile)
        _, height, width = unpad_image(torch.zeros(1, rows * side, columns * side), size).shape
        return height, width

    def block(self, size: Size) -> list[int]:
        height, width = self.unpadded(size)
        return [IMAGE] * ((self.tile // PATCH // 2) ** 2 + height * (width + 1))


class GraniteDocling(CommonFamily, Idefics3):
    """Tiles have headers, and a line break ends each row of tiles. An image of one tile has no overview, and only the
    line break follows it."""

    class_name = "GraniteDoclingForConditionalGeneration"
    sizes = ((TILE, 2 * TILE), (TILE, TILE))

    def config(self) -> Any:
        vision = GraniteDoclingVisionConfig(
            **tower(TILE), out_hidden_size=32, scale_factor=2, deepstack_visual_indexes=[0, 1], use_fine_route=True
        )
        text = GraniteDoclingTextConfig(
            **decoder(), attention_multiplier=0.35, logits_scaling=1.0, tie_word_embeddings=False
        )
        return GraniteDoclingConfig(
            vision_config=vision, text_config=text, image_token_id=IMAGE, tie_word_embeddings=False
        )

    def block(self, size: Size) -> list[int]:
        one = [IMAGE] * (TILE // PATCH // 2) ** 2
        n_crops = 1 if n_tiles(size) == 1 else n_tiles(size) - 1
        ids = [token for crop in range(n_crops) for token in (START, FIRST_TILE + crop, *one)] + [ROW_END]
        return ids if n_crops == 1 else [*ids, ROW_END, START, OVERVIEW - 8, *one, START]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        pixels = torch.randn(n_tiles(size), 3, TILE, TILE, generator=generator)
        return {"pixel_values": pixels, "pixel_attention_mask": torch.ones(n_tiles(size)).bool()}
