"""Ovis 2, Aria, FastVLM and PerceptionLM."""

from typing import Any

import torch
from transformers import (
    AriaConfig,
    AriaTextConfig,
    CLIPVisionConfig,
    FastVlmConfig,
    LlamaConfig,
    Ovis2Config,
    Ovis2VisionConfig,
    PerceptionLMConfig,
    Qwen2Config,
    ResNetConfig,
)
from transformers.models.idefics3 import Idefics3VisionConfig

from helpers.families.base import (
    BREAK,
    DIFFER,
    ENCODES_FIRST,
    END,
    IMAGE,
    PATCH,
    PIXELS_OR_EMBEDS,
    RECENT,
    START,
    VIDEO,
    ImageInputs,
    Size,
    decoder,
    tower,
)
from helpers.families.common import CommonFamily
from helpers.families.llava import Llava

OVIS_TILE = 24
GRID, COLUMN = 88, 89


class Ovis2(CommonFamily, Llava):
    """An overview, and then tiles with markers between them. The model replaces all of these by embeddings of a visual
    vocabulary."""

    class_name = "Ovis2ForConditionalGeneration"
    sizes = ((OVIS_TILE, 2 * OVIS_TILE), (OVIS_TILE, OVIS_TILE), (2 * OVIS_TILE, OVIS_TILE))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if not ENCODES_FIRST:  # generate repeats each tile separately
            self.cannot["sampled"] = self.cannot["beams"] = DIFFER

    def config(self) -> Any:
        vision = Ovis2VisionConfig(**tower(OVIS_TILE), hidden_stride=2, vocab_size=40)
        return Ovis2Config(
            vision_config=vision,
            text_config=Qwen2Config(**decoder()),
            image_token_id=IMAGE,
            visual_indicator_token_ids=[START, GRID, COLUMN, BREAK, END],
            hidden_size=32,
            vocab_size=96,
            tie_word_embeddings=False,
        )

    def build(self, attention: str = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        """Return a model that never answers with markers: generate would treat them as text, the oracle as
        embeddings."""
        model = super().build(attention, seed, n_layers)
        model.generation_config.suppress_tokens += [GRID, COLUMN]
        return model

    def block(self, size: Size) -> list[int]:
        tile = [IMAGE] * (OVIS_TILE // PATCH // 2) ** 2
        rows, columns = size[0] // OVIS_TILE, size[1] // OVIS_TILE
        ids = [START, *tile, GRID]
        if rows * columns > 1:
            for row in range(rows):
                ids += [BREAK] * (row > 0)
                for column in range(columns):
                    ids += [COLUMN] * (column > 0) + tile
        return [*ids, END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        n_tiles = size[0] // OVIS_TILE * (size[1] // OVIS_TILE)
        n_tiles += n_tiles > 1
        return {"pixel_values": torch.randn(n_tiles, 3, OVIS_TILE, OVIS_TILE, generator=generator)}


class Aria(CommonFamily, Llava):
    """Images of two sizes are resampled to a fixed number of tokens."""

    class_name = "AriaForConditionalGeneration"
    sizes = ((24, 24),)

    def config(self) -> Any:
        text = AriaTextConfig(**decoder(moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1))
        return AriaConfig(
            vision_config=Idefics3VisionConfig(**tower(24)),
            text_config=text,
            projector_patch_to_query_dict={36: 12},
            image_token_index=IMAGE,
        )

    def block(self, size: Size) -> list[int]:
        return [IMAGE] * 12

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        mask = torch.ones(1, *size).long()
        mask[:, :, 16:] = 0  # the processor pads images that are not square
        return {**super().image_inputs(size, generator), "pixel_mask": mask}


class FastVlm(CommonFamily, Llava):
    """A convolutional tower. The published one needs timm; a ResNet has the same interface."""

    class_name = "FastVlmForConditionalGeneration"
    eager_tower = True
    sizes = ((64, 64),)

    def config(self) -> Any:
        vision = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        vision.hidden_size = 16
        return FastVlmConfig(vision_config=vision, text_config=Qwen2Config(**decoder()), image_token_index=IMAGE)

    def block(self, size: Size) -> list[int]:
        return [IMAGE] * (size[0] // 8 * (size[1] // 8))


class PerceptionLM(CommonFamily, Llava):
    """Images consist of an overview and tiles, videos of frames, each pooled to a quarter. All images of a batch have
    the same number of tiles, and all videos the same number of frames. The published tower needs timm; CLIP's has the
    same interface."""

    class_name = "PerceptionLMForConditionalGeneration"
    sizes = ((24, 48),)
    video_sizes = ((3, 24, 24),)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if not RECENT:
            self.cannot["embedded"] = PIXELS_OR_EMBEDS

    def config(self) -> Any:
        vision = CLIPVisionConfig(**tower(24))
        vision.model_args = {"embed_dim": 32}
        return PerceptionLMConfig(
            vision_config=vision,
            text_config=LlamaConfig(**decoder()),
            projector_pooling_ratio=2,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
        )

    def block(self, size: Size) -> list[int]:
        return [VIDEO if len(size) == 3 else IMAGE] * 27

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        name = "pixel_values_videos" if len(size) == 3 else "pixel_values"
        return {name: torch.randn(1, 3, 3, 24, 24, generator=generator)}
