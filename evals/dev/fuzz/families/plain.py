"""LLaVA, ViP-LLaVA and Video-LLaVA: an image is one raster of patches."""

from __future__ import annotations

from inspect import signature
from random import Random
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    LlavaConfig,
    PixtralVisionConfig,
    SiglipVisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from tokenprune.evals.dev.fuzz.families.base import Family, Item, noise, of
from tokenprune.evals.dev.fuzz.families.square import pixtral_blocks, pixtral_tensors

TOWERS: dict[str, Any] = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig, "dinov2": Dinov2Config}


class Llava(Family):
    class_name = "LlavaForConditionalGeneration"

    def config(self, rng: Random) -> Any:
        self.kind = rng.choice([*TOWERS, "pixtral"])
        self.patch, self.side = rng.choice([2, 4]), rng.randint(3, 6)
        self.settings |= {"tower": self.kind, "side": self.side}
        common = {"image_token_index": self.special["image"], "text_config": self.backbone(rng)}
        if self.kind == "pixtral":
            vision = PixtralVisionConfig(**self.tower(rng, 16, self.patch))
            strategy = {"vision_feature_select_strategy": "full", "vision_feature_layer": -1}
            return LlavaConfig(vision_config=vision, **common, **strategy)
        vision = TOWERS[self.kind](**self.tower(rng, self.side, self.patch))
        feature_layer = rng.choice([-1, -2, -2, vision.num_hidden_layers, [-2, -1]])
        self.settings["feature_layer"] = feature_layer
        return LlavaConfig(
            vision_config=vision,
            vision_feature_layer=feature_layer,
            vision_feature_select_strategy="full" if self.kind == "siglip" else "default",
            **common,
        )

    def item(self, rng: Random) -> Item:
        if self.kind == "pixtral":
            return Item("image", (rng.randint(1, 6), rng.randint(1, 6)))
        return Item("image", (self.side, self.side))

    def blocks(self, items: list[Item]) -> list[list[int]]:
        if self.kind == "pixtral":
            return pixtral_blocks(self, items)
        return [[self.special["image"]] * (self.side**2) for _ in items]

    def tensors(self, rows: list[list[Item]], generator: torch.Generator) -> dict[str, Any]:
        if self.kind == "pixtral":
            return pixtral_tensors(of(rows, "image"), self.patch, generator)
        pixels = self.side * self.patch
        return {"pixel_values": noise(generator, len(of(rows, "image")), 3, pixels, pixels)}


class VipLlava(Llava):
    class_name = "VipLlavaForConditionalGeneration"

    def config(self, rng: Random) -> Any:
        self.kind, self.patch, self.side = "clip", rng.choice([2, 4]), rng.randint(3, 6)
        vision = CLIPVisionConfig(**self.tower(rng, self.side, self.patch))
        states = range(-vision.num_hidden_layers, vision.num_hidden_layers + 1)
        layers = rng.sample(states, rng.randint(2, 3))
        name = "vision_feature_layer"
        if name not in signature(VipLlavaForConditionalGeneration.forward).parameters:
            name += "s"
        self.settings |= {"side": self.side, "feature_layers": layers}
        named: dict[str, Any] = {name: layers}
        return VipLlavaConfig(
            vision_config=vision, text_config=self.backbone(rng), image_token_index=self.special["image"], **named
        )


class VideoLlava(Family):
    """Every frame of a video keeps its CLS token."""

    class_name = "VideoLlavaForConditionalGeneration"

    def config(self, rng: Random) -> Any:
        self.patch, self.side = rng.choice([2, 4]), rng.randint(2, 4)
        self.frames = rng.randint(1, 3)
        self.settings |= {"side": self.side, "frames": self.frames}
        return VideoLlavaConfig(
            vision_config=CLIPVisionConfig(**self.tower(rng, self.side, self.patch)),
            text_config=self.backbone(rng),
            image_token_index=self.special["image"],
            video_token_index=self.special["video"],
        )

    def item(self, rng: Random) -> Item:
        return rng.choice([Item("image", ()), Item("video", (self.frames,))])

    def blocks(self, items: list[Item]) -> list[list[int]]:
        counts = {"image": self.side**2, "video": self.frames * (self.side**2 + 1)}
        return [[self.special[item.modality]] * counts[item.modality] for item in items]

    def tensors(self, rows: list[list[Item]], generator: torch.Generator) -> dict[str, Any]:
        pixels, result = self.side * self.patch, {}
        images, videos = of(rows, "image"), of(rows, "video")
        if images:
            new = "pixel_values" in signature(VideoLlavaForConditionalGeneration.forward).parameters
            name = "pixel_values" if new else "pixel_values_images"
            result[name] = noise(generator, len(images), 3, pixels, pixels)
        if videos:
            result["pixel_values_videos"] = noise(generator, len(videos), self.frames, 3, pixels, pixels)
        return result
