"""LLaVA-NeXT, LLaVA-NeXT-Video and LLaVA-OneVision: an overview, tiles and newline tokens; pooled frames."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextVideoConfig,
    LlavaOnevisionConfig,
    SiglipVisionConfig,
)
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from tokenprune.evals.dev.fuzz.families.base import Family, Item, noise, of

SHAPES = [(1, 2), (2, 1), (2, 2), (1, 3), (3, 1)]


class LlavaNext(Family):
    """Image sizes are in pixels; the number of visual tokens is taken from the unpatched model."""

    class_name = "LlavaNextForConditionalGeneration"
    sides = (2, 3, 4)

    def config(self, rng: Random) -> Any:
        self.patch, self.side = rng.choice([2, 4]), rng.choice(self.sides)
        self.tile = self.patch * self.side
        shapes = rng.sample(SHAPES, rng.randint(1, 4))
        self.pinpoints = [[rows * self.tile, columns * self.tile] for rows, columns in shapes]
        self.settings |= {"side": self.side, "shapes": shapes}
        self.counts: dict[tuple[int, ...], int] = {}
        return self.whole_config(rng, self.backbone(rng))

    def whole_config(self, rng: Random, text: Any) -> Any:
        return LlavaNextConfig(
            vision_config=CLIPVisionConfig(**self.tower(rng, self.side, self.patch)),
            text_config=text,
            image_token_index=self.special["image"],
            image_grid_pinpoints=self.pinpoints,
            vision_feature_layer=rng.choice([-1, -2]),
        )

    def item(self, rng: Random) -> Item:
        return Item("image", (rng.randint(self.tile // 2, 3 * self.tile), rng.randint(self.tile // 2, 3 * self.tile)))

    def n_tiles(self, size: tuple[int, ...]) -> int:
        return image_size_to_num_patches(size, self.pinpoints, self.tile)

    def count(self, item: Item) -> int:
        """Return the number of visual tokens of an image that is alone in its row."""
        if item.size not in self.counts:
            given = self.image_tensors([item], torch.Generator())
            with torch.no_grad():
                features: Any = self.twin.model.get_image_features(**given)
            self.counts[item.size] = len(features.pooler_output[0])
        return self.counts[item.size]

    def blocks(self, items: list[Item]) -> list[list[int]]:
        return [[self.special["image"]] * self.count(item) for item in items]

    def image_tensors(self, images: list[Item], generator: torch.Generator) -> dict[str, Any]:
        counts = [self.n_tiles(item.size) for item in images]
        pixels = torch.zeros(len(images), max(counts), 3, self.tile, self.tile)
        for number, count in enumerate(counts):
            pixels[number, :count] = noise(generator, count, 3, self.tile, self.tile)
        return {"pixel_values": pixels, "image_sizes": torch.tensor([item.size for item in images])}

    def tensors(self, rows: list[list[Item]], generator: torch.Generator) -> dict[str, Any]:
        images, videos, result = of(rows, "image"), of(rows, "video"), {}
        if images:
            result |= self.image_tensors(images, generator)
        if videos:
            frames = videos[0].size[0]
            result["pixel_values_videos"] = noise(generator, len(videos), frames, 3, self.tile, self.tile)
        return result


class LlavaNextVideo(LlavaNext):
    class_name = "LlavaNextVideoForConditionalGeneration"
    sides = (2, 4)

    def whole_config(self, rng: Random, text: Any) -> Any:
        self.frames, mode = rng.randint(1, 4), rng.choice(["average", "max"])
        self.settings |= {"frames": self.frames, "pool": mode}
        return LlavaNextVideoConfig(
            vision_config=CLIPVisionConfig(**self.tower(rng, self.side, self.patch)),
            text_config=text,
            image_token_index=self.special["image"],
            video_token_index=self.special["video"],
            image_grid_pinpoints=self.pinpoints,
            spatial_pool_mode=mode,
            spatial_pool_stride=2,
        )

    def item(self, rng: Random) -> Item:
        return super().item(rng) if rng.random() < 0.5 else Item("video", (self.frames,))

    def blocks(self, items: list[Item]) -> list[list[int]]:
        per_video = self.frames * (self.side // 2) ** 2
        counts = [per_video if item.modality == "video" else self.count(item) for item in items]
        return [[self.special[item.modality]] * n for item, n in zip(items, counts, strict=True)]


class LlavaOnevision(LlavaNext):
    class_name = "LlavaOnevisionForConditionalGeneration"

    def whole_config(self, rng: Random, text: Any) -> Any:
        self.frames, most = rng.randint(1, 4), rng.choice([1, 2, 4, 9])
        self.settings |= {"frames": self.frames, "most_tiles": most}
        return LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**self.tower(rng, self.side, self.patch)),
            text_config=text,
            image_token_index=self.special["image"],
            video_token_index=self.special["video"],
            image_grid_pinpoints=self.pinpoints,
            vision_aspect_ratio=f"anyres_max_{most}",
        )

    def item(self, rng: Random) -> Item:
        return super().item(rng) if rng.random() < 0.6 else Item("video", (self.frames,))

    def blocks(self, items: list[Item]) -> list[list[int]]:
        alone = sum(item.modality == "image" for item in items) == 1
        per_video = self.frames * ((self.side + 1) // 2) ** 2 + 1

        def count(item: Item) -> int:
            if item.modality == "video":
                return per_video
            return self.count(item) if alone else self.side**2 + 1

        return [[self.special[item.modality]] * count(item) for item in items]

    def tensors(self, rows: list[list[Item]], generator: torch.Generator) -> dict[str, Any]:
        result = super().tensors(rows, generator)
        if "pixel_values" in result:
            result["batch_num_images"] = torch.tensor([sum(item.modality == "image" for item in row) for row in rows])
        return result
