"""Random tiny models: those of the contract tests (tests/helpers/families), with sizes, layers and weights drawn."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import torch
import transformers
from helpers.families import FAMILIES as TINY
from helpers.families.base import BREAK, IMAGE, PAD, VIDEO, decoder
from torch import Tensor

Size = tuple[int, ...]  # as `block` of a tiny family takes it; three numbers are a video's


def pixels(side: int, most: int = 5) -> Callable[[Random], Size]:
    """Return sizes in multiples of the `side` of a visual token."""
    return lambda rng: (side * rng.randint(1, most), side * rng.randint(1, most))


def tiles(side: int, most: int = 4) -> Callable[[Random], Size]:
    return lambda rng: (side, side * rng.randint(1, most))


def padded(rng: Random) -> Size:
    """Return the size of an image of one tile, a part of which may be padding, or of several."""
    return (32, 4 * rng.randint(1, 8)) if rng.random() < 0.5 else (32, 32 * rng.randint(2, 3))


def anything(side: int) -> Callable[[Random], Size]:
    return lambda rng: (rng.randint(side // 2, 3 * side), rng.randint(side // 2, 3 * side))


@dataclass(frozen=True)
class Kind:
    """What is drawn of a family.

    settings: of the tiny family's class; a LLaVA's kind is its tower. size: a random image; None for one of the tiny
    family's own. own_decoder: whether the language model must be the family's. images_first: whether images precede all
    text of a row. chats: whether `generate` accepts further images after the first turn. mrope: whether position IDs
    have three components.
    """

    tiny: str
    size: Callable[[Random], Size] | None = None
    settings: Callable[[Random], dict[str, Any]] = lambda rng: {}
    own_decoder: bool = False
    images_first: bool = False
    chats: bool = True
    mrope: bool = False


qwen = partial(Kind, size=pixels(8), own_decoder=True, chats=False, mrope=True)
FAMILIES: dict[str, Kind] = {
    "llava": Kind(
        "llava-clip",
        settings=lambda rng: {
            "kind": rng.choice(["clip", "siglip", "dinov2"]),
            "vision_feature_layer": rng.choice([-1, -2, -2, 2, [-2, -1]]),
        },
    ),
    "llava_pixtral": Kind("llava-pixtral", pixels(4, 6), own_decoder=True),
    "vip_llava": Kind("vip-llava"),
    "video_llava": Kind("video-llava"),
    "llava_next": Kind("llava-next", anything(12)),
    "llava_next_video": Kind("llava-next-video", anything(16)),
    "llava_onevision": Kind("llava-onevision", anything(12)),
    "qwen2_vl": qwen("qwen2-vl"),
    "qwen2_5_vl": qwen("qwen2.5-vl"),
    "qwen3_vl": qwen("qwen3-vl"),
    "internvl": Kind("internvl", tiles(24)),
    "idefics3": Kind("idefics3", padded),
    "smolvlm": Kind("smolvlm", padded),
    "gemma3": Kind(
        "gemma3",
        settings=lambda rng: {"window": rng.choice([512, 9 + rng.randint(0, 12)])},
        own_decoder=True,
        chats=False,
    ),
    "paligemma": Kind("paligemma", own_decoder=True, images_first=True, chats=False),
    "mistral3": Kind("mistral3", pixels(8), own_decoder=True),
}


class Family:
    """A random model of one kind.

    model: the model that the fuzz patches. twin: its copy with eager attention, never patched.
    """

    text = range(2, BREAK - 8)
    pad = PAD
    placeholders = (("image", IMAGE), ("video", VIDEO))

    def __init__(self, name: str, rng: Random) -> None:
        self.kind = FAMILIES[name]
        self.settings = self.kind.settings(rng)
        own = dict(self.settings)
        tiny = f"llava-{own.pop('kind')}" if "kind" in own else self.kind.tiny
        self.tiny = type(TINY[self.kind.tiny])(tiny, **own)
        self.attention, self.layers = rng.choice(["sdpa", "eager"]), rng.randint(2, 6)
        config = self.config(rng)
        self.tiny.config = lambda: config
        model: Any = self.tiny.build(self.attention, rng.randrange(2**31), self.layers)
        spread = rng.uniform(0.5, 1.0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(spread)
                else:  # norms and biases, which are not exactly one and zero after training
                    parameter.add_(torch.randn(parameter.shape) * 0.05)
        self.model, self.twin = model, deepcopy(model)
        self.twin.set_attn_implementation("eager")

    def config(self, rng: Random) -> Any:
        """Return the tiny family's configuration with other numbers of layers and heads, and another decoder."""
        config = self.tiny.config()
        vision = config.vision_config
        depth = "depth" if hasattr(vision, "depth") else "num_hidden_layers"
        n_tower = rng.randint(3, 4)
        setattr(vision, depth, n_tower)
        kv_heads = rng.choice([1, 2, 4])
        self.settings |= {"tower": n_tower, "layers": self.layers, "kv_heads": kv_heads}
        if self.kind.own_decoder:
            config.text_config.num_key_value_heads = kv_heads
        else:
            config.text_config = self.backbone(rng, kv_heads)
        return config

    def backbone(self, rng: Random, kv_heads: int) -> Any:
        """Return the configuration of a random kind of language model."""
        kind = rng.choice(["Llama", "Llama", "Qwen2", "Qwen3", "Mistral", "Olmo2", "Granite"])
        extra: dict[str, Any] = {}
        if kind in ("Qwen3", "Mistral"):
            extra["head_dim"] = 8
        if kind == "Mistral":
            extra["sliding_window"] = rng.choice([None, None, None, rng.randint(6, 60)])
        if kind == "Granite":
            extra |= {"attention_multiplier": 8**-0.5, "residual_multiplier": 0.7}
        self.settings |= {"backbone": kind, **extra}
        return getattr(transformers, f"{kind}Config")(**decoder(num_key_value_heads=kv_heads, **extra))

    def item(self, rng: Random) -> Size:
        """Return a random size of an image or video."""
        if self.tiny.video_sizes and rng.random() < 0.4:
            frames, *size = rng.choice(self.tiny.video_sizes)
            return (frames, *(self.kind.size(rng) if self.kind.mrope and self.kind.size else size))
        return self.kind.size(rng) if self.kind.size else rng.choice(self.tiny.sizes)

    def tensors(self, rows: list[list[Size]], generator: torch.Generator) -> dict[str, Any]:
        """Return the arguments with the images and videos of all rows."""
        images = [self.tiny.image_inputs(size, generator) for row in rows for size in row]
        return self.tiny.join(images, [len(row) for row in rows])

    def position_ids(self, ids: Tensor, real: Tensor, before: Tensor) -> Tensor:
        """Return position IDs for new columns after those `before`, as a caller may pass them: padding has none of its
        own. Those with three components number every run of placeholders as a grid of at most three columns."""
        if not self.kind.mrope:
            last = before.amax(-1, keepdim=True) if before.shape[-1] else torch.full((len(ids), 1), 1)
            return last + real.cumsum(1)
        result = torch.zeros(3, *ids.shape, dtype=torch.long)
        for row in range(len(ids)):
            following = int(before[..., row, :].max()) + 1 if before.shape[-1] else 0
            first = run = 0  # start and length of the current run of placeholders
            for column, token in enumerate(ids[row].tolist()):
                if token in (IMAGE, VIDEO):
                    first = following if run == 0 else first
                    result[:, row, column] = torch.tensor([first, first + run // 3, first + run % 3])
                    following = max(following, first + 3, first + run // 3 + 1)
                    run += 1
                else:
                    result[:, row, column] = following
                    following += int(real[row, column])
                    run = 0
        return result
