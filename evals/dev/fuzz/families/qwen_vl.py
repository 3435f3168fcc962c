"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images and videos of any size, and position IDs of three components."""

from __future__ import annotations

from abc import abstractmethod
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3VLConfig

from tokenprune.evals.dev.fuzz.families.base import Family, Item, noise, of

MERGE = 2
SECTIONS = {8: [[2, 1, 1]], 16: [[4, 2, 2], [2, 3, 3]]}


class QwenVL(Family):
    """Sizes are (steps, rows, columns) in visual tokens."""

    chats = False
    mrope = True

    def config(self, rng: Random) -> Any:
        self.patch = rng.choice([2, 4])
        self.depth = rng.randint(2, 4)
        vision_heads = rng.choice([2, 4])
        self.vision: dict[str, Any] = {
            "depth": self.depth,
            "hidden_size": vision_heads * 8,
            "intermediate_size": 24,
            "num_heads": vision_heads,
            "patch_size": self.patch,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
        }
        special = {
            "image_token_id": self.special["image"],
            "video_token_id": self.special["video"],
            "vision_start_token_id": self.special["start"],
            "vision_end_token_id": self.special["end"],
        }
        return self.whole_config(rng, special)

    @abstractmethod
    def whole_config(self, rng: Random, special: dict[str, Any]) -> Any:
        """Return the model's config, with the vision tower of `self.vision` and these token IDs."""

    def language(self, rng: Random, **settings: Any) -> dict[str, Any]:
        section = rng.choice(SECTIONS[self.head_dim])
        self.settings["section"] = section
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section, **settings}
        return self.decoder(rope_parameters=rope)

    def item(self, rng: Random) -> Item:
        size = rng.randint(1, 5), rng.randint(1, 5)
        return Item("image", (1, *size)) if rng.random() < 0.6 else Item("video", (rng.randint(1, 3), *size))

    def blocks(self, items: list[Item]) -> list[list[int]]:
        start, end = self.special["start"], self.special["end"]
        counts = [item.size[0] * item.size[1] * item.size[2] for item in items]
        return [[start, *[self.special[item.modality]] * count, end] for item, count in zip(items, counts, strict=True)]

    def tensors(self, rows: list[list[Item]], generator: torch.Generator) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for modality, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            items = of(rows, modality)
            if items:
                grids = torch.tensor([(t, MERGE * h, MERGE * w) for t, h, w in (item.size for item in items)])
                n_patches = int(grids.prod(1).sum())
                result[pixels] = noise(generator, n_patches, 3 * 2 * self.patch**2)
                result[f"{modality}_grid_thw"] = grids
        return result

    def position_ids(self, ids: Tensor, real: Tensor, before: Tensor) -> Tensor:
        """Number text one by one, and every run of placeholders as a grid of at most three columns."""
        result = torch.zeros(3, *ids.shape, dtype=torch.long)
        visual = (self.special["image"], self.special["video"])
        for row in range(len(ids)):
            following = int(before[..., row, :].max()) + 1 if before.shape[-1] else 0
            first = run = 0  # start and length of the current run of placeholders
            for column, token in enumerate(ids[row].tolist()):
                if token in visual:
                    first = following if run == 0 else first
                    result[:, row, column] = torch.tensor([first, first + run // 3, first + run % 3])
                    following = max(following, first + 3, first + run // 3 + 1)
                    run += 1
                else:
                    result[:, row, column] = following
                    following += int(real[row, column])
                    run = 0
        return result

    def types(self, ids: Tensor) -> dict[str, Tensor]:
        image, video = ids == self.special["image"], ids == self.special["video"]
        return {"mm_token_type_ids": (image + 2 * video.long()).int()}


class Qwen2VL(QwenVL):
    class_name = "Qwen2VLForConditionalGeneration"

    def whole_config(self, rng: Random, special: dict[str, Any]) -> Any:
        vision = {**self.vision, "embed_dim": self.vision["hidden_size"], "mlp_ratio": 2}
        vision["hidden_size"] = self.heads * self.head_dim
        del vision["intermediate_size"]
        return Qwen2VLConfig(vision_config=vision, text_config=self.language(rng), **special)


class Qwen2_5_VL(QwenVL):
    class_name = "Qwen2_5_VLForConditionalGeneration"

    def whole_config(self, rng: Random, special: dict[str, Any]) -> Any:
        full = sorted(rng.sample(range(self.depth), rng.randint(1, self.depth)))
        window = rng.randint(1, 3) * MERGE * self.patch
        self.settings |= {"full": full, "window": window}
        vision = {
            **self.vision,
            "window_size": window,
            "fullatt_block_indexes": full,
            "out_hidden_size": self.heads * self.head_dim,
        }
        return Qwen2_5_VLConfig(vision_config=vision, text_config=self.language(rng), **special)


class Qwen3VL(QwenVL):
    """A timestamp precedes every step of a video, and each step has its own markers."""

    class_name = "Qwen3VLForConditionalGeneration"

    def whole_config(self, rng: Random, special: dict[str, Any]) -> Any:
        deep = sorted(rng.sample(range(self.depth), rng.randint(1, min(self.depth, self.layers))))
        self.settings["deepstack"] = deep
        vision = {
            **self.vision,
            "out_hidden_size": self.heads * self.head_dim,
            "num_position_embeddings": rng.choice([36, 64]),
            "deepstack_visual_indexes": deep,
        }
        text = {**self.language(rng, mrope_interleaved=True), "head_dim": self.head_dim}
        return Qwen3VLConfig(vision_config=vision, text_config=text, **special)

    def blocks(self, items: list[Item]) -> list[list[int]]:
        blocks = super().blocks(items)
        line, start, end, video = (self.special[role] for role in ("line", "start", "end", "video"))
        for number, item in enumerate(items):
            if item.modality == "video":
                steps, rows, columns = item.size
                blocks[number] = [line, start, *[video] * (rows * columns), end] * steps
        return blocks
