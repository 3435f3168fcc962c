"""InternVL, Idefics3 and SmolVLM: square tiles, whose visual tokens each combine 2 x 2 patches."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from transformers import (
    Idefics3Config,
    Idefics3VisionConfig,
    InternVLConfig,
    InternVLVisionConfig,
    SmolVLMConfig,
    SmolVLMVisionConfig,
)

from tokenprune.evals.dev.fuzz.families.base import Family, Item, noise, of


class InternVL(Family):
    """Sizes are numbers of tiles."""

    class_name = "InternVLForConditionalGeneration"

    def config(self, rng: Random) -> Any:
        self.patch, self.side = rng.choice([2, 4]), rng.choice([2, 4, 6])
        self.per_tile = (self.side // 2) ** 2
        self.settings["side"] = self.side
        return InternVLConfig(
            vision_config=InternVLVisionConfig(
                **self.tower(rng, self.side, self.patch), use_qk_norm=rng.random() < 0.5
            ),
            text_config=self.backbone(rng),
            image_token_id=self.special["image"],
            image_seq_length=self.per_tile,
            tie_word_embeddings=False,
        )

    def item(self, rng: Random) -> Item:
        return Item("image", (rng.choice([1, 1, 2, 3, 4]),))

    def blocks(self, items: list[Item]) -> list[list[int]]:
        start, image, end = (self.special[role] for role in ("start", "image", "end"))
        return [[start, *[image] * (item.size[0] * self.per_tile), end] for item in items]

    def tensors(self, rows: list[list[Item]], generator: torch.Generator) -> dict[str, Any]:
        n_tiles, pixels = sum(item.size[0] for item in of(rows, "image")), self.side * self.patch
        return {"pixel_values": noise(generator, n_tiles, 3, pixels, pixels)}


class Idefics3(Family):
    """Sizes are the number of tiles, and the pixels of the first tile that are not padding. An overview follows the
    tiles of every image."""

    class_name = "Idefics3ForConditionalGeneration"
    configs: tuple[Any, Any] = (Idefics3Config, Idefics3VisionConfig)

    def config(self, rng: Random) -> Any:
        self.patch, self.side = rng.choice([2, 4]), rng.choice([4, 8])
        self.settings["side"] = self.side
        whole, vision = self.configs
        return whole(
            vision_config=vision(**self.tower(rng, self.side, self.patch)),
            text_config=self.backbone(rng),
            image_token_id=self.special["image"],
            scale_factor=2,
        )

    def item(self, rng: Random) -> Item:
        n_tiles = rng.choice([1, 1, 2, 3])
        real = self.side if n_tiles > 1 else rng.randint(1, self.side)
        return Item("image", (n_tiles, real * self.patch))

    def blocks(self, items: list[Item]) -> list[list[int]]:
        image, marker, overview = (self.special[role] for role in ("image", "start", "overview"))
        result = []
        for item in items:
            headers = [*self.text[: item.size[0] - 1], overview]
            tiles = [[marker, header, *[image] * (self.side // 2) ** 2] for header in headers]
            result.append([token for tile in tiles for token in tile] + [marker])
        return result

    def tensors(self, rows: list[list[Item]], generator: torch.Generator) -> dict[str, Any]:
        pixels, most = self.side * self.patch, max(sum(item.size[0] for item in row) for row in rows)
        values, real = torch.zeros(len(rows), most, 3, pixels, pixels), torch.zeros(len(rows), most, pixels, pixels)
        for number, row in enumerate(rows):
            at = 0
            for item in row:
                tiles = slice(at, at + item.size[0])
                real[number, tiles, :, : item.size[1]] = 1
                values[number, tiles] = noise(generator, item.size[0], 3, pixels, pixels)
                at += item.size[0]
        return {"pixel_values": values * real[:, :, None], "pixel_attention_mask": real.long()}


class SmolVLM(Idefics3):
    class_name = "SmolVLMForConditionalGeneration"
    configs = (SmolVLMConfig, SmolVLMVisionConfig)
