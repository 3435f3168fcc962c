"""Gemma 3, PaliGemma and Mistral 3, and images of any size for Pixtral's tower."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    Mistral3Config,
    MistralConfig,
    PaliGemmaConfig,
    PixtralVisionConfig,
    SiglipVisionConfig,
)

from tokenprune.evals.dev.fuzz.families.base import Family, Item, noise, of


def pixtral_blocks(family: Family, items: list[Item]) -> list[list[int]]:
    """Return rows of placeholders with a marker after each row, and a different one after the last."""
    image, line, end = (family.special[role] for role in ("image", "line", "end"))
    return [[*([*[image] * item.size[1], line] * item.size[0])[:-1], end] for item in items]


def pixtral_tensors(images: list[Item], unit: int, generator: torch.Generator) -> dict[str, Any]:
    """Return the pixels of images of (rows, columns) units, padded to the largest."""
    height, width = (max(item.size[axis] for item in images) * unit for axis in (0, 1))
    sizes = [(item.size[0] * unit, item.size[1] * unit) for item in images]
    pixels = [pad(noise(generator, 3, h, w), (0, width - w, 0, height - h)) for h, w in sizes]
    return {"pixel_values": torch.stack(pixels), "image_sizes": torch.tensor(sizes)}


class Mistral3(Family):
    class_name = "Mistral3ForConditionalGeneration"

    def config(self, rng: Random) -> Any:
        self.patch = rng.choice([2, 4])
        self.unit = 2 * self.patch
        return Mistral3Config(
            vision_config=PixtralVisionConfig(**self.tower(rng, 32, self.patch)),
            text_config=MistralConfig(**self.decoder(head_dim=self.head_dim), sliding_window=None),
            image_token_index=self.special["image"],
            vision_feature_layer=rng.choice([-1, -1, -2]),
        )

    def item(self, rng: Random) -> Item:
        return Item("image", (rng.randint(1, 5), rng.randint(1, 5)))

    def blocks(self, items: list[Item]) -> list[list[int]]:
        return pixtral_blocks(self, items)

    def tensors(self, rows: list[list[Item]], generator: torch.Generator) -> dict[str, Any]:
        return pixtral_tensors(of(rows, "image"), self.unit, generator)


class Square(Family):
    """Images with a fixed number of visual tokens from a SigLIP tower."""

    n_visual: int
    pixels: int

    def siglip(self, rng: Random, side: int) -> Any:
        patch = rng.choice([2, 4])
        self.pixels = side * patch
        return SiglipVisionConfig(**self.tower(rng, side, patch))

    def item(self, rng: Random) -> Item:
        return Item("image", ())

    def tensors(self, rows: list[list[Item]], generator: torch.Generator) -> dict[str, Any]:
        return {"pixel_values": noise(generator, len(of(rows, "image")), 3, self.pixels, self.pixels)}


class Gemma3(Square):
    class_name = "Gemma3ForConditionalGeneration"
    chats = False

    def config(self, rng: Random) -> Any:
        side = rng.choice([4, 6])
        square = rng.choice([n for n in (1, 2, 3) if side % n == 0])
        self.n_visual = (side // square) ** 2
        # What an image attends to beyond the window depends on the version of transformers.
        window = rng.choice([512, self.n_visual + rng.randint(0, 12)])
        kinds = [rng.choice(["sliding_attention", "full_attention"]) for _ in range(self.layers)]
        self.settings |= {"n_visual": self.n_visual, "window": window, "kinds": kinds}
        text = Gemma3TextConfig(
            **self.decoder(head_dim=self.head_dim),
            query_pre_attn_scalar=self.head_dim,
            sliding_window=window,
            layer_types=kinds,
        )
        return Gemma3Config(
            vision_config=self.siglip(rng, side),
            text_config=text,
            mm_tokens_per_image=self.n_visual,
            image_token_index=self.special["image"],
            boi_token_index=self.special["start"],
            eoi_token_index=self.special["end"],
        )

    def blocks(self, items: list[Item]) -> list[list[int]]:
        image = [self.special["image"]] * self.n_visual
        return [[self.special["start"], *image, self.special["end"]] for _ in items]

    def types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"token_type_ids": (ids == self.special["image"]).long()}


class PaliGemma(Square):
    class_name = "PaliGemmaForConditionalGeneration"
    images_first = True
    chats = False

    def config(self, rng: Random) -> Any:
        side = rng.randint(2, 5)
        self.n_visual = side**2
        if rng.random() < 0.5:
            text = GemmaConfig(**self.decoder(head_dim=self.head_dim))
        else:
            self.attention, capped = "eager", rng.choice([None, 50.0])
            window = rng.choice([512, rng.randint(8, 60)])
            self.settings |= {"gemma": 2, "window": window, "capped": capped}
            text = Gemma2Config(
                **self.decoder(head_dim=self.head_dim),
                query_pre_attn_scalar=self.head_dim,
                sliding_window=window,
                attn_logit_softcapping=capped,
            )
        return PaliGemmaConfig(
            vision_config=self.siglip(rng, side),
            text_config=text,
            image_token_index=self.special["image"],
            projection_dim=self.heads * self.head_dim,
            hidden_size=self.heads * self.head_dim,
            vocab_size=self.vocabulary,
        )

    def blocks(self, items: list[Item]) -> list[list[int]]:
        image = [self.special["image"]] * self.n_visual
        return [[*image, self.special["bos"]] if item is items[-1] else image for item in items]

    def types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"token_type_ids": torch.zeros_like(ids)}
